package feed_test

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/kidoban/kidoban/gateway/feed"
)

// schema is the JSON Schema of a line.
func schema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	text, err := os.ReadFile("event.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("event.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("event.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func valid(t *testing.T, s *jsonschema.Schema, line string) error {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(line))
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return s.Validate(doc)
}

// TestEventsAreReadStrictly has one fault in each line that is no log-in.
func TestEventsAreReadStrictly(t *testing.T) {
	s := schema(t)
	for line, want := range map[string]string{
		`{"kind":"weather"}`:                                           `kind "weather": want one of login, door, session, request, factor, message, operator`,
		`{"kind":["factor"]}`:                                          `kind ["factor"]: want a string or a number`,
		`{"kind":"factor","outcome":"who knows"}`:                      `outcome "who knows": want success, failure, refused or unknown`,
		`{"kind":"request"}`:                                           `route "": want one of reset, signup, invite,`,
		`{"kind":"request","route":"login"}`:                           `route "login": want one of reset, signup, invite,`,
		`{"kind":"session","act":"stolen"}`:                            `act "stolen": want one of begun, minted, ended, of kind session`,
		`{"kind":"operator","act":"decision.lift"}`:                    `actor: missing: want who did it`,
		`{"kind":"operator","actor":"alice"}`:                          `act: missing: want what was done`,
		`{"kind":"message","size":"4 kB"}`:                             `size "4 kB": want a whole number from 0 to`,
		`{"kind":"message","size":-1}`:                                 `size -1: want a whole number from 0 to`,
		`{"kind":"message","targets":2000000}`:                         `targets 2000000: want a whole number from 0 to 1048576`,
		`{"kind":"door","unproven":"maybe"}`:                           `unproven "maybe": want true, false or null`,
		`{"kind":"factor","time":"tomorrow"}`:                          `time "tomorrow": want RFC 3339`,
		`{"kind":"message","targets":1.5}`:                             `targets 1.5: want a whole number`,
		`{"kind":"session","credential":{}}`:                           `credential {}: want a string or a number`,
		`{"kind":"request","route":"reset","size":true}`:               `size true: want a whole number`,
		`{"kind":"message","route":"reset"}`:                           `route "reset": want message, of kind message`,
		`{"kind":"door","route":"/login"}`:                             `route "/login": want one of login, logout, signup,`,
		`{"kind":"factor","address":"localhost"}`:                      `address "localhost": want an IPv4 or IPv6 address`,
		`{"kind":"factor","asn":"N/A"}`:                                `asn "N/A": want a number such as 64500`,
		`{"kind":"factor","country":"Japan"}`:                          `country "Japan": want two letters`,
		`{"kind":"factor","device":{"id":"d","state":"stolen"}}`:       `device {"id":"d","state":"stolen"}: want one of none, stranger,`,
		`{"kind":"factor","colour":"red"}`:                             `colour: no field of kind factor: want one of id, time,`,
		`{"kind":"factor","password_digest":"x"}`:                      `password_digest: no field of kind factor`,
		`{"kind":"session","targets":3}`:                               `targets: no field of kind session`,
		`{"kind":"operator","act":"a","actor":"b","size":1}`:           `size: no field of kind operator`,
		`{"kind":"request","route":"reset","correct":true}`:            `correct: no field of kind request`,
		`{"kind":"request","route":"reset","name":["a"],"kind_":null}`: `name ["a"]: want a string or a number`,
	} {
		all, told, counts := read(t, strings.NewReader("{}\n"+line+"\n"), "jsonl", feed.Options{AllKinds: true})
		if len(all) != 1 || counts.Faults != 1 || len(told) != 2 || !strings.HasPrefix(told[1], "2: "+want) {
			t.Errorf("%s: %d events, told %q; want %q", line, len(all), told, "2: "+want)
		}
		// A schema cannot know everything: unknown fields are allowed to log-ins, and addresses are texts.
		if !strings.Contains(want, "no field of") && !strings.Contains(line, "localhost") && !strings.Contains(line, "N/A") && !strings.Contains(line, "Japan") &&
			!strings.Contains(line, "tomorrow") && valid(t, s, line) == nil {
			t.Errorf("%s is valid by the schema", line)
		}
		if all, _, counts := read(t, strings.NewReader(line), "jsonl", feed.Options{}); len(all) != 0 || counts.Ignored+counts.Faults != 1 {
			t.Errorf("%s: read as a log-in: %+v", line, counts)
		}
	}
	text, err := os.ReadFile("testdata/events.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if err := valid(t, s, line); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
}
