package api_test

import (
	"net/http"
	"net/netip"
	"testing"
	"testing/fstest"
	"time"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/rules"
)

// exempting is a rule with a counter and two exemptions, of which one has ended.
const exempting = `id: test.exempting
title: An address fails
severity: low
owner: security-team
reason: For a test.
review_by: 2027-05-31
count:
  failed: {distinct: name, by: source.address, within: 10m, where: outcome == "failure"}
on: login.after
when: failed >= 1
except:
  - {list: office, owner: hanako, reason: Our own office., until: 2027-01-31}
  - {when: 'inNetwork(source.address, "198.51.100.0/24")', owner: taro, reason: A partner., until: 2026-11-23}
then:
  - tag: failed
mode: shadow
tests:
  - name: one matches
    given: [{outcome: failure, name: hanako}]
    expect: match
  - name: none does not
    given: [{outcome: success, name: hanako}]
    expect: none
`

// What counters take, and what exemptions did, stays visible.
func TestCountersAndExemptions(t *testing.T) {
	set, faults := rules.Load(fstest.MapFS{"a.yaml": {Data: []byte(exempting)}, "lists/office.networks": {Data: []byte("203.0.113.0/24\n")}})
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	set.Limit(rules.Limits{Counter: 1 << 20, Total: 2 << 20})
	s := newServer(t, func(s *server) { s.api.Rules = func() *rules.Set { return set } })
	for i, from := range []string{"203.0.113.7", "203.0.113.7", "192.0.2.7"} {
		e := detectors.Event{Time: s.at.Add(time.Duration(i) * time.Second), Kind: detectors.Login, Outcome: detectors.Failure,
			Name: detectors.Name{Digest: detectors.Digest{1}}, Source: detectors.Source{Address: netip.MustParseAddr(from)}}
		set.Observe(e)
		set.Evaluate(rules.LoginAfter, e, nil)
	}
	code, m := s.call("GET", "/v1/counters", "", "Authorization", "Bearer "+viewerKey)
	all, _ := m["counters"].([]any)
	if code != http.StatusOK || len(all) != 1 || m["limit"] != float64(2<<20) || m["keys"] != 2.0 || m["widened"] != 0.0 {
		t.Fatalf("= %d %v", code, m)
	}
	c := all[0].(map[string]any)
	if c["keys"] != 2.0 || c["bytes"] != m["bytes"] || c["limit"] != float64(1<<20) || c["distinct"] != "name" || c["within_seconds"] != 600.0 || c["rules"].([]any)[0] != "test.exempting" {
		t.Errorf("the counter: %v of %v", c, m)
	}
	code, x := s.call("GET", "/v1/exemptions", "", "Authorization", "Bearer "+viewerKey)
	all, _ = x["exemptions"].([]any)
	if code != http.StatusOK || len(all) != 2 {
		t.Fatalf("= %d %v", code, x)
	}
	first, second := all[0].(map[string]any), all[1].(map[string]any)
	if first["list"] != "office" || first["matches"] != 2.0 || first["ended"] != false || first["latest"] != s.at.Add(time.Second).Format(time.RFC3339) {
		t.Errorf("the office: %v", first)
	}
	if second["matches"] != 0.0 || second["ended"] != true || second["until"] != "2026-11-23" || second["latest"] != nil {
		t.Errorf("the partner: %v", second)
	}
	if _, list := s.call("GET", "/v1/rules", ""); list["rules"].([]any)[0].(map[string]any)["lists"].(map[string]any)["office"] == nil {
		t.Errorf("the rule tells no list: %v", list)
	}
}
