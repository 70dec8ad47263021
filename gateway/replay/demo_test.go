package replay_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/detectors/simulate"
	"github.com/kidoban/kidoban/gateway/replay"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// recorder lets everything through and writes it down as kidoban simulate verdicts and
// kidoban rules replay read it.
type recorder struct {
	t     testing.TB
	out   *json.Encoder
	names map[detectors.Digest]string
	ids   map[string]string
}

// line has the fields of gateway/feed/README.md.
type line struct {
	Time     string         `json:"time"`
	Name     string         `json:"name"`
	Account  string         `json:"account,omitempty"`
	Since    string         `json:"account_since,omitempty"`
	Company  string         `json:"organization,omitempty"`
	Outcome  string         `json:"outcome"`
	Address  string         `json:"address"`
	ASN      uint32         `json:"asn,omitempty"`
	Country  string         `json:"country,omitempty"`
	JA4      string         `json:"ja4,omitempty"`
	Headers  string         `json:"headers,omitempty"`
	Device   map[string]any `json:"device,omitempty"`
	Password string         `json:"password_digest,omitempty"`
}

func newRecorder(t testing.TB, w io.Writer) *recorder {
	return &recorder{t: t, out: json.NewEncoder(w), names: make(map[detectors.Digest]string), ids: make(map[string]string)}
}

// short numbers what is long: devices, accounts and companies.
func (r *recorder) short(kind, id string) string {
	key := kind + " " + id
	if r.ids[key] == "" && id != "" {
		r.ids[key] = fmt.Sprintf("%s%d", kind, len(r.ids)+1)
	}
	return r.ids[key]
}

func (r *recorder) Before(*detectors.Event) simulate.Action { return simulate.Allow }

func (r *recorder) After(e *detectors.Event) simulate.Action {
	if e.Kind != detectors.Login {
		return simulate.Allow
	}
	name := r.names[e.Name.Digest]
	if name == "" {
		name = fmt.Sprintf("user%d@mail.example", len(r.names)+1)
		r.names[e.Name.Digest] = name
	}
	l := line{
		Time: e.Time.UTC().Format("2006-01-02T15:04:05.000Z"), Name: name, Account: r.short("a", string(e.Account)), Company: r.short("c", string(e.Organization)),
		Outcome: string(e.Outcome), Address: e.Source.Address.String(), ASN: e.Source.ASN, Country: e.Source.Country,
		JA4: e.Client.JA4, Headers: e.Client.Headers, Password: e.Password.Digest.String()[:12],
	}
	if !e.AccountSince.IsZero() {
		l.Since = e.AccountSince.UTC().Format(time.RFC3339)
	}
	if e.Device.ID != "" {
		l.Device = map[string]any{"id": r.short("d", e.Device.ID), "state": e.Device.State}
	}
	if err := r.out.Encode(l); err != nil {
		r.t.Fatal(err)
	}
	return simulate.Allow
}

func (r *recorder) Proved(*detectors.Event)   {}
func (r *recorder) Learn(*detectors.Event)    {}
func (r *recorder) Alarms(time.Time) []string { return nil }

// The demo is what the scenario beside it plays.
func TestDemoIsTheScenario(t *testing.T) {
	data, err := os.ReadFile("testdata/demo.yaml")
	if err != nil {
		t.Fatal(err)
	}
	s, err := simulate.Decode("demo.yaml", data)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := simulate.Run(t.Context(), s, 11, "recorder", newRecorder(t, &b)); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("demo.jsonl", b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := io.ReadAll(replay.Demo())
	if err != nil {
		t.Fatal(err)
	}
	if !*update && !bytes.Equal(got, b.Bytes()) {
		t.Error("demo.jsonl is not what the scenario plays; go test -update writes it anew")
	}
	if len(got) > 400<<10 {
		t.Errorf("%d bytes, want a small file", len(got))
	}
}
