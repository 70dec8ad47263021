package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

// anIncident is one that came to its end.
func anIncident() policies.IncidentView {
	at := monday.Add(1500 * time.Millisecond)
	v := policies.IncidentView{
		Incident: policies.Incident{ID: "06h31i", Category: "credential-stuffing", Key: "fingerprint", Value: "odd\x1b[2J", Rules: []rules.ID{"bad.office", "other"},
			State: policies.IncidentContained, Window: monday, FirstSeen: monday, LastSeen: monday.Add(time.Hour), Found: 41, Touched: 1, TouchedMore: true,
			Changes: []policies.IncidentChange{{State: policies.IncidentProposed, By: "bad.office", At: at, Note: "Three people of one network"},
				{State: policies.IncidentDeclared, By: "hanako", At: at.Add(90 * time.Second), Note: "a list\nis tried"},
				{State: policies.IncidentContained, By: "hanako", At: at.Add(10 * time.Minute), Note: "all of it is refused"}}},
		Findings: []string{"06h31f"}, Decisions: []string{}, Accounts: []string{"17"},
	}
	v.Times = v.Incident.Times()
	return v
}

func TestIncidentInWords(t *testing.T) {
	want := `Incident 06h31i: credential-stuffing of fingerprint "odd\x1b[2J"
  state                       contained
  findings                    41 by bad.office, other
  seen                        from 2026-11-23T09:00:00Z to 2026-11-23T10:00:00Z
  accounts                    1 or more
  time to detect (MTTD)       1.5s
  time to acknowledge (MTTA)  1m30s
  time to contain (MTTC)      10m0s
  time to recover (MTTR)      not yet, or not at all
How it came into its states:
  2026-11-23T09:00:01Z  proposed   bad.office  Three people of one network
  2026-11-23T09:01:31Z  declared   hanako      "a list\nis tried"
  2026-11-23T09:10:01Z  contained  hanako      all of it is refused
Findings:
  06h31f
  and 40 that are not named, or not kept any more
Decisions: none
Accounts:
  17
It can become: declared eradicated closed
`
	if diff := cmp.Diff(want, shownIncident(anIncident())); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	want = `incident  state      category             of                        findings  accounts   first seen            last seen
06h31i    contained  credential-stuffing  fingerprint "odd\x1b[2J"  41        1 or more  2026-11-23T09:00:00Z  2026-11-23T10:00:00Z
There are more: --limit lists up to 200, --state fewer.
`
	page := incidentPage{Incidents: []policies.Incident{anIncident().Incident}, Next: "06h31i"}
	if diff := cmp.Diff(want, listedIncidents(page, "open")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for state, want := range map[string]string{"open": "No incident is open.\n", "any": "No incident is known.\n"} {
		if got := listedIncidents(incidentPage{}, state); got != want {
			t.Errorf("%s: %q", state, got)
		}
	}
	old := anIncident()
	old.Findings = nil
	if got := shownIncident(old); !strings.Contains(got, "Findings: not kept any more\n") {
		t.Errorf("findings that are gone: %s", got)
	}
}

// TestIncidentCommands runs the commands against an API.
func TestIncidentCommands(t *testing.T) {
	var asked []string
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked = append(asked, strings.TrimSpace(r.Method+" "+r.URL.String()+" "+string(body)))
		v := anIncident()
		switch {
		case r.URL.Path == "/v1/incidents":
			_ = json.NewEncoder(w).Encode(map[string]any{"incidents": []policies.Incident{v.Incident}})
		case r.URL.Path == "/v1/incidents/06h31i":
			_ = json.NewEncoder(w).Encode(v)
		case r.URL.Path == "/v1/incidents/06h31i/state":
			_ = json.NewEncoder(w).Encode(v.Incident)
		default:
			w.WriteHeader(http.StatusConflict)
			fmt.Fprint(w, `{"title":"No","detail":"it can become declared, closed"}`)
		}
	}))
	defer api.Close()
	keyFile := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(keyFile, []byte("a-key\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) error {
		for _, cmd := range []*cobra.Command{incidentsList(), incidentsShow(), incidentsMove()} {
			if cmd.Name() == args[0] {
				cmd.SetArgs(append(args[1:], "--api", api.URL, "--key-file", keyFile))
				cmd.SilenceErrors, cmd.SilenceUsage = true, true
				return cmd.ExecuteContext(t.Context())
			}
		}
		return nil
	}
	for _, args := range [][]string{{"list"}, {"list", "--state", "any", "--limit", "7", "--json"}, {"show", "06h31i"}, {"move", "06h31i", "contained", "--note", "all of it is refused"}} {
		if err := run(args...); err != nil {
			t.Errorf("%v: %v", args, err)
		}
	}
	for want, args := range map[string][]string{
		"it can become declared, closed": {"move", "other", "closed", "--note", "x"},
		"want one of declared":           {"move", "06h31i", "over", "--note", "x"},
		"by which criteria":              {"move", "06h31i", "closed"},
	} {
		if err := run(args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", args, err, want)
		}
	}
	want := []string{"GET /v1/incidents?limit=50&state=open", "GET /v1/incidents?limit=7&state=any", "GET /v1/incidents/06h31i",
		`POST /v1/incidents/06h31i/state {"note":"all of it is refused","state":"contained"}`, `POST /v1/incidents/other/state {"note":"x","state":"closed"}`}
	if diff := cmp.Diff(want, asked); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
}
