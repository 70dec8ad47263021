package rules_test

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/rules"
)

// asking is a rule that matches every failure that a list has.
func asking(t *testing.T, list, variable, given string) string {
	return edited(t, "when: tried >= 3", fmt.Sprintf("when: tried >= 1 && listed(%q, %s)", list, variable),
		"repeat: 3, outcome: failure", "outcome: failure, "+given, "repeat: 2, outcome: failure", "outcome: success")
}

func TestListed(t *testing.T) {
	files := map[string]string{
		"lists/tor.networks":       "# exits\n203.0.113.7\n198.51.100.0/24 # a whole one\n2001:db8::/32\ninclude other\n",
		"lists/other.networks":     "192.0.2.128/25\n",
		"lists/hosting.asns":       "AS64500\n64501\n",
		"lists/staff.accounts":     "hanako\n",
		"lists/fleeting.domains":   "mail.example\n",
		"lists/tools.fingerprints": "t13d/aa/python\n",
	}
	for _, test := range []struct {
		list, variable, given string
		in, out               []string // values of the variable
	}{
		{"tor", "source.address", "source: 203.0.113.7", []string{"203.0.113.7", "198.51.100.200", "2001:db8::1", "192.0.2.200"}, []string{"", "203.0.113.8", "192.0.2.1", "2001:db9::1"}},
		{"tor", "source.network", "source: 203.0.113.7", []string{"203.0.113.7", "2001:db8::1"}, []string{"203.0.113.8"}},
		{"hosting", "source.asn", "asn: 64500", []string{"64500", "64501"}, []string{"", "64502"}},
		{"staff", "account", "account: hanako", []string{"hanako"}, []string{"", "taro"}},
		{"fleeting", "name.domain", "name: x@mail.example", []string{"a@mail.example", "b@x.mail.example"}, []string{"", "a@notmail.example", "a@example"}},
		{"tools", "fingerprint", "fingerprint: t13d/aa/python", []string{"t13d/aa/python"}, []string{"", "t13d/aa/curl"}},
	} {
		t.Run(test.list+" "+test.variable, func(t *testing.T) {
			fsys := folder("a.yaml", asking(t, test.list, test.variable, test.given))
			for name, content := range files {
				fsys[name] = &fstest.MapFile{Data: []byte(content)}
			}
			set, errs := rules.Load(fsys)
			if len(errs) > 0 {
				t.Fatal(errs)
			}
			ask := func(value string) bool {
				e := attempt(monday, "100.64.0.1", 1, detectors.Failure)
				switch test.variable {
				case "source.address", "source.network":
					a, _ := netip.ParseAddr(value)
					e.Source.Address, e.Source.Network = a, detectors.CountingNetwork(a)
				case "source.asn":
					_, _ = fmt.Sscan(value, &e.Source.ASN)
				case "account":
					e.Account = detectors.Account(value)
				case "name.domain":
					e.Name.Display = value
				case "fingerprint":
					e.Fingerprint = value
				}
				fresh := set.Fresh()
				fresh.Observe(e)
				fresh.Observe(attempt(monday, "100.64.0.1", 1, detectors.Failure))
				return len(fresh.Evaluate(rules.LoginAfter, e, nil)) > 0
			}
			for _, value := range test.in {
				if !ask(value) {
					t.Errorf("%q: want it listed", value)
				}
			}
			for _, value := range test.out {
				if ask(value) {
					t.Errorf("%q: want it not listed", value)
				}
			}
		})
	}
}

// A list that goes bad, alone or by what it includes, keeps its last good version.
func TestTheLastGoodListStays(t *testing.T) {
	h := &memory{versions: map[string]string{}}
	first := folder("a.yaml", asking(t, "tor", "source.address", "source: 203.0.113.7"),
		"lists/tor.networks", "203.0.113.7\n", "lists/other.networks", "192.0.2.1\n")
	if _, errs := rules.LoadWithHistory(first, h); len(errs) > 0 {
		t.Fatal(errs)
	}
	short := hash("203.0.113.7\n")[:12]
	for name, change := range map[string]struct {
		files map[string]string
		want  []string
	}{
		"an entry":  {map[string]string{"lists/tor.networks": "203.0.113.7\nnowhere\n"}, []string{"lists/tor.networks:2:1: ", "its version " + short + " stays in force"}},
		"a circle":  {map[string]string{"lists/tor.networks": "include tor\n"}, []string{"lists/tor.networks:1:1: list: include tor: lists include each other in a circle: tor, tor; its version " + short}},
		"a partner": {map[string]string{"lists/tor.networks": "include other\n203.0.113.7\n", "lists/other.networks": "include tor\n"}, []string{"in a circle", "stays in force"}},
		"too wide":  {map[string]string{"lists/tor.networks": "0.0.0.0/1\n"}, []string{"lists/tor.networks:1:1: ", "a network this wide is a mistake", short}},
		"gone":      {map[string]string{"lists/tor.networks": ""}, []string{"lists/tor.networks: the list is gone", "its version " + short + " stays in force for rules test.example"}},
		"included":  {map[string]string{"lists/tor.networks": "include other\n203.0.113.7\n", "lists/other.networks": ""}, []string{"lists/other.networks: the list is gone", "stays in force for rules test.example"}},
		"its test":  {map[string]string{"lists/tor.networks": "203.0.113.8\n"}, []string{"lists/tor.networks: with this list a.yaml:15:5: tests: ", "its version " + short + " stays in force for rules test.example"}},
		"its kind":  {map[string]string{"lists/tor.networks": "", "lists/tor.asns": "64500\n"}, []string{"lists/tor.asns: with this list a.yaml:10:28: when: listed: tor is a list of asns", "lists/tor.networks: the list is gone"}},
		"and rule":  {map[string]string{"lists/tor.networks": "", "a.yaml": "id: test.example"}, []string{"a.yaml:1:1: ", "its version " + hash(asking(t, "tor", "source.address", "source: 203.0.113.7"))[:12] + " stays", "lists/tor.networks: the list is gone"}},
	} {
		t.Run(name, func(t *testing.T) {
			fsys := maps.Clone(first)
			for file, content := range change.files {
				fsys[file] = &fstest.MapFile{Data: []byte(content)}
				if content == "" {
					delete(fsys, file)
				}
			}
			h := &memory{versions: maps.Clone(h.versions)}
			set, errs := rules.LoadWithHistory(fsys, h)
			var b strings.Builder
			for _, err := range errs {
				fmt.Fprintln(&b, err)
			}
			for _, part := range change.want {
				if !strings.Contains(b.String(), part) {
					t.Errorf("got %s, want it to say %q", b.String(), part)
				}
			}
			check := func(set *rules.Set) {
				t.Helper()
				e := attempt(monday, "203.0.113.7", 1, detectors.Failure)
				set.Observe(e)
				if found := set.Evaluate(rules.LoginAfter, e, nil); len(found) != 1 {
					t.Errorf("got %d findings of %d rules, want that of the list as it was", len(found), len(set.Rules()))
				}
				want := "203.0.113.7\n"
				if name == "included" { // that list is right, and the one that it includes is remembered
					want = change.files["lists/tor.networks"]
				}
				if got := h.versions["lists/tor.networks"]; got != want {
					t.Errorf("%q is remembered, want %q", got, want)
				}
			}
			check(set)
			again, errs := rules.LoadWithHistory(fsys, h) // a cold start
			if got := fmt.Sprintln(errors.Join(errs...)); got != b.String() {
				t.Errorf("a cold start tells %q, want %q", got, b.String())
			}
			check(again)
			old, _ := rules.Load(first)
			reloaded, _ := rules.Reload(old, fsys, h)
			check(reloaded)
		})
	}
}

// A list that nobody asks goes with its file, and one that is taken out of the rules
// with the rules.
func TestListsGo(t *testing.T) {
	h := &memory{versions: map[string]string{}}
	text := asking(t, "tor", "source.address", "source: 203.0.113.7")
	fsys := folder("a.yaml", text, "b.yaml", good(t), "lists/tor.networks", "203.0.113.7\ninclude other\n", "lists/other.networks", "192.0.2.1\n", "lists/unasked.asns", "64500\n")
	for _, step := range []struct {
		name   string
		change map[string]string
		faults int
		kept   string
	}{
		{"all", map[string]string{"b.yaml": edited(t, "test.example", "test.other")}, 0, "a.yaml b.yaml lists/other.networks lists/tor.networks lists/unasked.asns"},
		{"one that nobody asks", map[string]string{"lists/unasked.asns": ""}, 0, "a.yaml b.yaml lists/other.networks lists/tor.networks"},
		{"those that a rule asks", map[string]string{"lists/tor.networks": "", "lists/other.networks": ""}, 2, "a.yaml b.yaml lists/other.networks lists/tor.networks"},
		{"again, which changes nothing", nil, 2, "a.yaml b.yaml lists/other.networks lists/tor.networks"},
		{"put back without the other", map[string]string{"lists/tor.networks": "203.0.113.7\n"}, 0, "a.yaml b.yaml lists/tor.networks"},
		{"the rule with its list", map[string]string{"lists/tor.networks": "", "a.yaml": ""}, 0, "b.yaml"},
	} {
		for file, content := range step.change {
			fsys[file] = &fstest.MapFile{Data: []byte(content)}
			if content == "" {
				delete(fsys, file)
			}
		}
		_, errs := rules.LoadWithHistory(fsys, h)
		if got := strings.Join(h.Names(), " "); len(errs) != step.faults || got != step.kept {
			t.Errorf("%s: got %v and %s, want %d faults and %s", step.name, errs, got, step.faults, step.kept)
		}
	}
}

// Rules and lists that change at once are taken as they are now.
func TestAListChangesWithItsRule(t *testing.T) {
	h := &memory{versions: map[string]string{}}
	fsys := folder("a.yaml", asking(t, "tor", "source.address", "source: 203.0.113.7"), "lists/tor.networks", "203.0.113.7\n")
	if _, errs := rules.LoadWithHistory(fsys, h); len(errs) > 0 {
		t.Fatal(errs)
	}
	next := asking(t, "tor", "source.asn", "asn: 64500")
	fsys = folder("a.yaml", next, "lists/tor.asns", "64500\n")
	set, errs := rules.LoadWithHistory(fsys, h)
	if len(errs) > 0 || len(set.Rules()) != 1 || set.Rules()[0].Generation != hash(next) {
		t.Errorf("got %d rules, %v", len(set.Rules()), errs)
	}
	if got := strings.Join(h.Names(), " "); got != "a.yaml lists/tor.asns" {
		t.Errorf("remembered: %s", got)
	}
}
