package feed_test

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/feed"
)

// TestFieldsAreDocumented compares the names that are read with the table of the README
// and with the schema.
func TestFieldsAreDocumented(t *testing.T) {
	want := feed.FieldNames()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "\n## jsonl\n")
	table, _, _ = strings.Cut(table, "\n## ")
	quoted := regexp.MustCompile("`([^`]+)`")
	var rows [][]string
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 || !strings.HasPrefix(cells[1], " `") {
			continue
		}
		var names []string
		for _, m := range quoted.FindAllStringSubmatch(cells[1]+cells[2], -1) {
			names = append(names, m[1])
		}
		rows = append(rows, names)
	}
	byName := func(a, b []string) int { return strings.Compare(a[0], b[0]) }
	slices.SortFunc(rows, byName)
	slices.SortFunc(want, byName)
	if d := cmp.Diff(want, rows); d != "" {
		t.Errorf("README.md (-read +documented)\n%s", d)
	}

	var schema struct {
		Properties map[string]struct {
			Ref string `json:"$ref"`
		}
	}
	text, err = os.ReadFile("event.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	for _, names := range want {
		for i, name := range names {
			p, ok := schema.Properties[name]
			ref := ""
			if i > 0 {
				ref = "#/properties/" + names[0]
			}
			if !ok || p.Ref != ref {
				t.Errorf("event.schema.json: %s is there %t, as %q; want it as %q", name, ok, p.Ref, ref)
			}
			delete(schema.Properties, name)
		}
	}
	for name := range schema.Properties {
		t.Errorf("event.schema.json has %s, which is not read", name)
	}
}

// TestFirstNameCounts reads a line with a field and another name of it.
func TestFirstNameCounts(t *testing.T) {
	all, told, _ := read(t, strings.NewReader(`{"ts":1,"username":"b","name":"a","success":true,"correct":null,"outcome":"failure"}`), "jsonl", feed.Options{})
	if len(all) != 1 || len(told) != 0 || all[0].Event.Name.Display != "a" || all[0].Correct != feed.Yes || all[0].Event.Time.Unix() != 1 {
		t.Errorf("got %+v, told %v; want name a, correct, at second 1", all, told)
	}
}

func TestTimes(t *testing.T) {
	for text, want := range map[string]string{
		`1795478400`:                      "2026-11-24T00:00:00",
		`1795478400.25`:                   "2026-11-24T00:00:00.25",
		`"1795478400"`:                    "2026-11-24T00:00:00",
		`1795478400250`:                   "2026-11-24T00:00:00.25",
		`1795478400250.5`:                 "2026-11-24T00:00:00.2505",
		`1795478400250000`:                "2026-11-24T00:00:00.25",
		`1795478400250000001`:             "2026-11-24T00:00:00.250000001",
		`0`:                               "1970-01-01T00:00:00",
		`3.5`:                             "1970-01-01T00:00:03.5",
		`"2026-11-24T09:00:00.5+09:00"`:   "2026-11-24T00:00:00.5",
		`"2026-11-24 00:00:00"`:           "2026-11-24T00:00:00",
		`"2026-11-24T00:00:00"`:           "2026-11-24T00:00:00",
		`"2026-11-24T09:00:00.000+0900"`:  "2026-11-24T00:00:00",
		`-1`:                              "",
		`1e300`:                           "",
		`"NaN"`:                           "",
		`"Inf"`:                           "",
		`99999999999999999999`:            "",
		`"9999-01-01T00:00:00Z"`:          "",
		`"1969-12-31T23:59:59Z"`:          "",
		`true`:                            "",
		`"Mon, 24 Nov 2026 00:00:00 GMT"`: "",
	} {
		all, told, _ := read(t, strings.NewReader(`{"time":`+text+`}`), "jsonl", feed.Options{})
		got := ""
		if len(all) > 0 {
			got = all[0].Event.Time.UTC().Format("2006-01-02T15:04:05.999999999")
		}
		if got != want || (want == "") != (len(told) == 1) {
			t.Errorf("%s: got %q, told %v; want %q", text, got, told, want)
		}
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		format string
		o      feed.Options
		want   string
	}{
		{"", feed.Options{}, `unknown format ""`},
		{"sshd", feed.Options{Year: -1}, "year -1"},
		{"caddy", feed.Options{}, "at least one route"},
		{"caddy", feed.Options{Routes: []string{"POST"}}, `route "POST"`},
		{"caddy", feed.Options{Routes: []string{"POST login"}}, `route "POST login"`},
		{"caddy", feed.Options{Routes: []string{"POST /*/login"}}, "the end of a path"},
		{"caddy", feed.Options{Routes: []string{"POST /login"}, Success: []int{20}}, "status 20"},
		{"caddy", feed.Options{Routes: []string{"POST /login"}, Success: []int{422}}, "status 422 stands for"},
	} {
		_, err := feed.Open(strings.NewReader(""), c.format, c.o)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %+v: got %v, want an error with %q", c.format, c.o, err, c.want)
		}
	}
}

// TestKeys are whole or none.
func TestKeys(t *testing.T) {
	for text, want := range map[string]detectors.EventKey{
		`{"node":"gate-1","incarnation":2,"sequence":3}`: {Node: "gate-1", Incarnation: 2, Sequence: 3},
		`{"sequence":3}`:    {Sequence: 3},
		`{"node":"gate-1"}`: {},
		`{}`:                {},
	} {
		all, told, _ := read(t, strings.NewReader(`{"time":1,"key":`+text+`}`), "jsonl", feed.Options{})
		if len(all) != 1 || all[0].Event.Key != want {
			t.Errorf("%s: got %+v, told %v; want %+v", text, all, told, want)
		}
	}
	for _, text := range []string{`"gate-1/2/3"`, `7`, `{"sequence":-1}`} {
		if all, told, _ := read(t, strings.NewReader(`{"time":1,"key":`+text+`}`), "jsonl", feed.Options{}); len(all) != 0 || len(told) != 1 {
			t.Errorf("%s: got %d attempts, told %v; want a fault", text, len(all), told)
		}
	}
}

// TestLongIdentifiers are told apart and not kept.
func TestLongIdentifiers(t *testing.T) {
	long := strings.Repeat("x", 10_000)
	all, _, _ := read(t, strings.NewReader(`{"time":1,"account":"`+long+`a","device":"`+long+`"}`+"\n"+`{"time":1,"account":"`+long+`b"}`), "jsonl", feed.Options{})
	a, b := all[0].Event, all[1].Event
	if len(a.Account) > 300 || len(a.Device.ID) > 300 || a.Account == b.Account {
		t.Errorf("kept an account of %d and a device of %d bytes; accounts are the same: %t", len(a.Account), len(a.Device.ID), a.Account == b.Account)
	}
	all, told, _ := read(t, strings.NewReader(`{"time":1,"id":"`+long+`"}`), "jsonl", feed.Options{})
	if len(all) != 0 || len(told) != 1 {
		t.Errorf("an id of 10000 bytes: got %d attempts, told %v", len(all), told)
	}
}
