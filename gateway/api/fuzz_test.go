package api

import (
	"encoding/json"
	"errors"
	"testing"
	"time"
)

// FuzzRegistration: a body is either refused as a problem of the client or is a
// valid decision, and what is taken is JSON.
func FuzzRegistration(f *testing.F) {
	now := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	for _, seed := range []string{
		`{"scope":"address","value":"203.0.113.7","ttl":"30s","reason":"x"}`,
		`{"scope":"network","value":"2001:db8::/32","until":"2026-11-23T10:00:00Z","reason":"x","action":"delay","mode":"shadow","force":true}`,
		`{"scope":{"a":[1,2,{"b":null}]}}`, `{"scope":"a","scope":"b"}`, `{}{}`, `[`, ``, "{\"reason\":\"\xff\"}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var in registration
		err := decodeJSON(body, &in)
		if err == nil {
			if !json.Valid(body) {
				t.Errorf("%q is not JSON and was taken", body)
			}
			d, bad := in.decision("alice", now)
			err = bad
			if bad == nil {
				if invalid := d.Validate(); invalid != nil || !d.Until.After(now) || d.Reason == "" {
					t.Errorf("%q becomes %+v, which is not valid: %v", body, d, invalid)
				}
			}
		}
		if p, ok := errors.AsType[*Problem](err); err != nil && (!ok || p.Status < 400 || p.Status > 499) {
			t.Errorf("%q gives %v, want a problem of the client", body, err)
		}
	})
}
