package auth_test

import (
	"encoding/json"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/auth"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

// golden compares v, as indented JSON, with a file; the file read back must be v.
func golden[T any](t *testing.T, name string, v T) {
	t.Helper()
	got, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	file := filepath.Join("testdata", "golden", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v (run with -update to write it)", err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
	var back T
	if err := json.Unmarshal(want, &back); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	if diff := cmp.Diff(v, back); diff != "" {
		t.Errorf("%s read back (-want +got):\n%s", file, diff)
	}
}

func TestSessionGolden(t *testing.T) {
	golden(t, "session.json", auth.Session{
		ID: "7Q2YHVX4N3PZK5RT6WLMC2ABDE", Kind: auth.BrowserSession, Subject: "acc-1042", Organization: "org-7",
		Device: "5F4XAXTQPXX4LJ2BTUFW7ZIJLQ", Client: "Firefox on Windows", Country: "JP", AAL: 2, Verified: start, Factor: auth.Key, Rested: time.Hour, Created: start, Seen: start.Add(90 * time.Minute),
		Expires: start.Add(30 * 24 * time.Hour), Source: "203.0.113.7",
		Credentials: []auth.Credential{
			{Kind: "session", Hash: auth.HashCredential("session", "first"), Since: start, RetiredAt: start.Add(61 * time.Minute)},
			{Kind: "session", Hash: auth.HashCredential("session", "second"), Since: start.Add(time.Hour)},
		},
		Ended: start.Add(2 * time.Hour), EndedBy: "operator jiro",
	})
	golden(t, "session-token.json", auth.Session{
		ID: "Y3KQ5RT6WLMC2ABDE7Q2YHVX4N", Kind: auth.TokenSession, Subject: "acc-1042", AAL: 1, Created: start, Seen: start,
		Credentials: []auth.Credential{{Kind: "api-token", Hash: auth.HashCredential("api-token", "first"), Since: start}},
	})
}

func TestPersonGolden(t *testing.T) {
	golden(t, "person.json", auth.Person{
		Subject: "acc-1042", Organization: "org-7", Names: []string{"hanako@acme.example"}, Mail: []string{"hanako@acme.example"},
		Roles: []string{"admin"}, Language: "ja", TimeZone: "Asia/Tokyo", FirstSeen: start, LastSeen: start.Add(time.Hour),
	})
}

func TestFactorGolden(t *testing.T) {
	golden(t, "factor.json", auth.Factor{
		ID: "PZK5RT6WLMC2ABDE7Q2YHVX4N3", Subject: "acc-1042", Kind: auth.TOTP, Name: "電話", State: auth.FactorDisabled, Created: start,
		Used: start.Add(time.Hour), Failures: 20, NextAttempt: start.Add(2 * time.Hour), Disabled: start.Add(90 * time.Minute), DisabledBy: "throttle",
	})
	golden(t, "factor-recovery.json", auth.Factor{
		ID: "ABDE7Q2YHVX4N3PZK5RT6WLMC2", Subject: "acc-1042", Kind: auth.RecoveryCodes, Name: "recovery codes", State: auth.FactorActive, Created: start, CodesLeft: 9,
	})
	golden(t, "factor-notice.json", auth.FactorNotice{
		ID: "X4N3PZK5RT6WLMC2ABDE7Q2YHV", Kind: auth.FactorBound, Subject: "acc-1042", Factor: "PZK5RT6WLMC2ABDE7Q2YHVX4N3", FactorKind: auth.Key,
		Name: "my key", By: "operator jiro", At: start,
	})
}

func TestHoldGolden(t *testing.T) {
	o := aHold("acc-1042", "first")
	o.ID, o.State, o.Matched, o.AAL, o.FactorKind = "Q2YHVX4N3PZK5RT6WLMC2ABDE7", auth.HoldReleased, true, 2, auth.Key
	o.Credentials[0].Since = start
	o.Approved, o.ApprovedBy, o.Created, o.Expires, o.Ended, o.EndedBy = start.Add(time.Minute), "hanako", start, start.Add(10*time.Minute), start.Add(2*time.Minute), "release"
	// What stays here: it tells of the password, of the client program or of where the person is.
	o.Fingerprint, o.Attempt, o.Route, o.Method, o.Return = [16]byte{}, [16]byte{}, "", "", ""
	golden(t, "hold.json", o)
	golden(t, "slip.json", auth.Slip{
		ID: "HVX4N3PZK5RT6WLMC2ABDE7Q2Y", Subject: "acc-1042", For: "Q2YHVX4N3PZK5RT6WLMC2ABDE7", Purpose: auth.SlipConfirm, By: "operator jiro", Created: start,
		NotBefore: start, Expires: start.Add(10 * time.Minute), Used: start.Add(time.Minute), UsedFor: "Q2YHVX4N3PZK5RT6WLMC2ABDE7",
	})
	golden(t, "hold-notice.json", auth.FactorNotice{
		ID: "4N3PZK5RT6WLMC2ABDE7Q2YHVX", Kind: auth.HoldUnanswered, Subject: "acc-1042", Factor: o.ID, At: start.Add(10 * time.Minute), Client: o.Client, Country: o.Country, Source: o.Source,
	})
	full, err := json.Marshal(aHold("acc-1042"))
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"/login", "/room", "POST", "ingerprint", "ttempt", "ode\":"} {
		if strings.Contains(string(full), secret) {
			t.Errorf("%s has %q", full, secret)
		}
	}
}

// A field for a secret would have to be given a name here first.
func TestSessionHasNoOtherFields(t *testing.T) {
	fields := func(v any) string {
		var names []string
		for f := range reflect.TypeOf(v).Fields() {
			names = append(names, f.Name)
		}
		return strings.Join(names, " ")
	}
	for _, test := range []struct {
		v    any
		want string
	}{
		{auth.Session{}, "ID Kind Subject Organization Device Client AAL Verified Factor Rested Created Seen Expires Source Country Credentials Ended EndedBy"},
		{auth.Credential{}, "Kind Hash Since RetiredAt"},
		{auth.Factor{}, "ID Subject Kind Name State Created Used Failures NextAttempt CodesLeft Disabled DisabledBy"},
		{auth.FactorNotice{}, "ID Kind Subject Factor FactorKind Name By At Client Country Source"},
		{auth.Hold{}, "ID State Need Subject Organization Device Client ClientKind Fingerprint Network Source Country Attempt Route Method Return Code Matched " +
			"AAL FactorKind Approved ApprovedBy Created Expires Credentials Ended EndedBy"},
		{auth.Slip{}, "ID Subject For Purpose By Created NotBefore Expires Used UsedFor Cancelled"},
		{auth.Attempt{}, "Outcome Factor Notices UserVerified Synced"},
	} {
		if got := fields(test.v); got != test.want {
			t.Errorf("fields of %T:\n got %s\nwant %s", test.v, got, test.want)
		}
	}
}

// The page that says what is promised names tests that there are, in whichever
// package. A requirement that names none is one that the gate does not meet, or that
// is not its own, and says so first.
func TestReadmeNamesTests(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(text)
	tests := make(map[string]bool)
	declared := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	err = filepath.WalkDir("..", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for _, d := range declared.FindAllStringSubmatch(string(source), -1) {
			tests[d[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`(Test\\w+)`")
	found := named.FindAllStringSubmatch(page, -1)
	if len(found) < 100 {
		t.Errorf("%d tests are named", len(found))
	}
	for _, n := range found {
		if !tests[n[1]] {
			t.Errorf("there is no %s", n[1])
		}
	}
	_, table, _ := strings.Cut(page, "\n## Requirements\n")
	table, _, _ = strings.Cut(table, "\n## ")
	not := regexp.MustCompile(`^(No|Backend|Operator): `)
	rows := 0
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) != 5 || strings.HasPrefix(cells[1], "---") || strings.HasPrefix(cells[1], " requirement") {
			if strings.HasPrefix(line, "|") && len(cells) != 5 {
				t.Errorf("want a requirement, how and tests: %s", line)
			}
			continue
		}
		if rows++; !named.MatchString(cells[3]) && !not.MatchString(strings.TrimSpace(cells[2])) {
			t.Errorf("no test, and no word of why:%s", cells[1])
		}
	}
	if rows < 80 {
		t.Errorf("%d requirements", rows)
	}
}
