package policies_test

import (
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/kidoban/kidoban/policies"
)

func TestPolicy(t *testing.T) {
	shipped, err := policies.LoadPolicy(nil)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "policy.json", shipped)

	own, err := policies.LoadPolicy(fstest.MapFS{"policy.yaml": {Data: []byte("attempts: {name: {burst: 5}}\n")}})
	if err != nil {
		t.Fatal(err)
	}
	want := shipped
	want.Attempts.Name.Burst = 5
	if !reflect.DeepEqual(own, want) {
		t.Errorf("LoadPolicy = %+v, want the shipped one with a burst of 5", own)
	}
	decoys, err := policies.LoadPolicy(fstest.MapFS{"policy.yaml": {Data: []byte("decoys: [taro.decoy@acme.example, old-admin]\n")}})
	if err != nil || !reflect.DeepEqual(decoys.Decoys, []string{"taro.decoy@acme.example", "old-admin"}) {
		t.Errorf("decoys = %q, %v", decoys.Decoys, err)
	}
	if got, err := policies.LoadPolicy(fstest.MapFS{}); err != nil || !reflect.DeepEqual(got, shipped) {
		t.Errorf("without a file: %+v, %v, want the shipped one", got, err)
	}
}

func TestPolicyFaults(t *testing.T) {
	for name, test := range map[string]struct{ yaml, want string }{
		"unknown key":        {"session: {}\n", "policy.yaml:1:1"},
		"decoys of nobody":   {"decoys: taro\n", "policy.yaml:1:9"},
		"no unit":            {"delay: 2\n", "policy.yaml:1:8"},
		"too long":           {"delay: 1h\n", "delay"},
		"burst of nothing":   {"attempts: {name: {burst: 0}}\n", "burst"},
		"idle after overall": {"sessions: {overall: 1d, idle: 2d}\n", "idle is longer than overall"},
		"not a mapping":      {"- 1\n", "policy.yaml:1:1"},
	} {
		_, err := policies.LoadPolicy(fstest.MapFS{"policy.yaml": {Data: []byte(test.yaml)}})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want an error with %q", name, err, test.want)
		}
	}
}

func TestNoticeForm(t *testing.T) {
	at := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	golden(t, "notice.json", policies.Notice{
		Key: "decision.expired/01J/hook", Channel: "webhook", Template: "decision.expired", To: "hook:soc",
		Values: map[string]string{"value": "203.0.113.7"}, State: policies.Leased, Owner: "node-1", Created: at, Attempts: 1,
		Next: at.Add(time.Minute), MessageID: "<4kq7m2xw5jv3f6a2zt7bqd5n2y@kidoban>",
	})
}
