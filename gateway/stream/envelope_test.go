package stream

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/kidoban/kidoban/detectors"
)

var update = flag.Bool("update", false, "write the golden files")

var noon = time.Date(2026, 11, 23, 12, 0, 0, 123456789, time.UTC)

// full is an event with nothing left out.
func full() detectors.Event {
	return detectors.Event{
		StreamTime: noon, Time: noon.Add(-3 * time.Second), Kind: detectors.Login,
		Name: detectors.Name{Digest: detectors.Digest{1, 2, 15: 16}, Display: "たなか"}, Account: "u-17", AccountSince: noon.AddDate(-1, 0, 0),
		Organization: "acme", Session: "s-1",
		Source: detectors.Source{Address: netip.MustParseAddr("2001:db8::17"), Network: netip.MustParsePrefix("2001:db8::/64"), Port: 4711,
			ASN: 64496, Country: "JP", Shared: true},
		Device: detectors.Device{ID: "d-1", State: detectors.Trusted}, Fingerprint: "t13d", Route: detectors.LoginRoute, Credential: "password",
		Outcome: detectors.Refused, Reason: "limited", Ambiguous: true, Size: 1 << 40,
		Password:  detectors.PasswordFacts{Digest: detectors.Digest{3, 15: 1}, Near: []uint32{1, 0, math.MaxUint32}, Repeat: true, Typo: true, Breached: true, Popularity: 48},
		Existence: detectors.Exists, Unproven: true,
		Client:  detectors.Client{JA4: "t13d1516h2_8daaf6152771_e5627efa2ab1", Headers: "0123456789ab", Family: "chrome", Incoherent: true},
		History: detectors.History{Logins: 255, Network: true, Operator: true, Client: true, Capacity: 1000},
		Targets: 7, Act: detectors.Minted, Actor: "operator:sato", Offset: -210, Shift: 750,
	}
}

// fullOfThree is full as version 3 of the envelope has it.
func fullOfThree() detectors.Event {
	e := full()
	e.Offset, e.Shift = 0, 0
	return e
}

// fullOfTwo is full as version 2 of the envelope has it.
func fullOfTwo() detectors.Event {
	e := fullOfThree()
	e.Targets, e.Act, e.Actor = 0, "", ""
	return e
}

// fullOfOne is full as version 1 of the envelope has it.
func fullOfOne() detectors.Event {
	e := fullOfTwo()
	e.Existence, e.Unproven, e.Client, e.History = "", false, detectors.Client{}, detectors.History{}
	e.Password.Digest, e.Password.Near = detectors.Digest{}, nil
	return e
}

// differ is how two events differ; empty if they do not.
func differ(want, got detectors.Event) string {
	if reflect.DeepEqual(want, got) {
		return ""
	}
	return cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }))
}

// TestEventHasNoFieldThatIsLost fails when an event gets a field that the
// envelope does not carry.
func TestEventHasNoFieldThatIsLost(t *testing.T) {
	e := full()
	var walk func(path string, v reflect.Value)
	walk = func(path string, v reflect.Value) {
		if v.Kind() == reflect.Struct && v.Type() != reflect.TypeFor[time.Time]() && v.Type() != reflect.TypeFor[netip.Addr]() && v.Type() != reflect.TypeFor[netip.Prefix]() {
			for i := range v.NumField() {
				walk(path+"."+v.Type().Field(i).Name, v.Field(i))
			}
			return
		}
		if v.IsZero() && !strings.HasPrefix(path, ".Key") {
			t.Errorf("%s is not set in this test: set it, and carry it", path)
		}
	}
	walk("", reflect.ValueOf(e))
	got, err := decodeEvent(appendEvent(nil, &e))
	if diff := differ(e, got); err != nil || diff != "" {
		t.Errorf("%v: (-want +got):\n%s", err, diff)
	}
}

func anyEvent(t *rapid.T) detectors.Event {
	text := func(label string) string { return rapid.StringN(-1, 20, 40).Draw(t, label) }
	e := detectors.Event{Kind: detectors.Kind(text("kind")), Account: detectors.Account(text("account")), Session: text("session"),
		Outcome: detectors.Outcome(text("outcome")), Reason: text("reason"), Size: rapid.Int64().Draw(t, "size"), Ambiguous: rapid.Bool().Draw(t, "ambiguous")}
	e.StreamTime = time.Unix(rapid.Int64Range(-1<<40, 1<<40).Draw(t, "sec"), rapid.Int64Range(0, 1e9-1).Draw(t, "nsec")).UTC()
	e.Time = clamp(e.StreamTime.Add(time.Duration(rapid.Int64Range(-1e10, 1e10).Draw(t, "off"))), e.StreamTime)
	e.Name.Digest[3] = rapid.Byte().Draw(t, "digest")
	if b := rapid.SliceOfN(rapid.Byte(), 0, 16).Draw(t, "address"); len(b) == 4 || len(b) == 16 {
		e.Source.Address, _ = netip.AddrFromSlice(b)
		e.Source.Network = detectors.CountingNetwork(e.Source.Address)
		if rapid.Bool().Draw(t, "other") {
			e.Source.Network = netip.PrefixFrom(e.Source.Address, rapid.IntRange(-1, 128).Draw(t, "bits"))
		}
	}
	e.Source.Port = rapid.Uint16().Draw(t, "port")
	e.Password.Popularity = rapid.Int().Draw(t, "popularity")
	e.Password.Digest[3] = rapid.Byte().Draw(t, "password")
	e.Password.Near = rapid.SliceOfN(rapid.Uint32(), 0, 40).Draw(t, "near")
	e.Existence, e.Unproven = detectors.Existence(text("existence")), rapid.Bool().Draw(t, "unproven")
	e.Client = detectors.Client{JA4: text("ja4"), Headers: text("headers"), Family: text("family"), Incoherent: rapid.Bool().Draw(t, "incoherent")}
	e.History = detectors.History{Logins: rapid.Int().Draw(t, "logins"), Network: rapid.Bool().Draw(t, "network"), Operator: rapid.Bool().Draw(t, "operator"),
		Client: rapid.Bool().Draw(t, "client"), Capacity: rapid.Int().Draw(t, "capacity")}
	e.Targets, e.Act, e.Actor = rapid.Int().Draw(t, "targets"), detectors.Act(text("act")), text("actor")
	e.Offset, e.Shift = rapid.Int16().Draw(t, "offset"), rapid.Int16().Draw(t, "shift")
	return e
}

func TestEventsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := anyEvent(t)
		normalize(&e)
		b := appendEvent(nil, &e)
		got, err := decodeEvent(b)
		if diff := differ(e, got); err != nil || diff != "" {
			t.Fatalf("%v: (-want +got):\n%s", err, diff)
		}
	})
}

// Minutes have one form, and are those of a clock.
func TestMinutesAreDecodedStrictly(t *testing.T) {
	e := detectors.Event{StreamTime: noon, Time: noon, Offset: 63} // one byte, at the end
	b := appendEvent(nil, &e)
	for name, last := range map[string][]byte{"0": {0}, "beyond 16 bits": binary.AppendVarint(nil, math.MaxInt16+1), "below 16 bits": binary.AppendVarint(nil, math.MinInt16-1)} {
		if got, err := decodeEvent(append(bytes.Clone(b[:len(b)-1]), last...)); !errors.Is(err, errCanonical) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
	if got, err := decodeEvent(b); err != nil || differ(e, got) != "" {
		t.Errorf("got %+v, %v", got, err)
	}
}

// TestLargestEvent shows that no event is too large for an envelope.
func TestLargestEvent(t *testing.T) {
	e := full()
	for _, text := range []*string{(*string)(&e.Kind), &e.Name.Display, (*string)(&e.Account), (*string)(&e.Organization), &e.Session, &e.Source.Country,
		&e.Device.ID, (*string)(&e.Device.State), &e.Fingerprint, (*string)(&e.Route), &e.Credential, (*string)(&e.Outcome), &e.Reason, (*string)(&e.Existence),
		&e.Client.JA4, &e.Client.Headers, &e.Client.Family, (*string)(&e.Act), &e.Actor} {
		*text = strings.Repeat("鍵", longest)
	}
	e.Password.Near = make([]uint32, 2*nearest)
	normalize(&e)
	if n := len(e.Session); n > longest || n < longest-3 || !strings.HasSuffix(e.Session, "鍵") {
		t.Errorf("a text of %d bytes ends with %q", n, e.Session[n-3:])
	}
	m := events{id: senderID{strings.Repeat("n", nodeBytes), 1 << 63}, first: 1 << 62, bodies: [][]byte{appendEvent(nil, &e)}}
	if n := len(m.append(nil)); n > largest {
		t.Errorf("an envelope of %d bytes, want at most %d", n, largest)
	}
	known := make([]known, mostKnown)
	for i := range known {
		known[i].id, known[i].floor, known[i].through = m.id, 1<<62, 1<<62
	}
	if n := len((&beat{id: m.id, clock: noon, sent: 1 << 62, known: known}).append(nil)); n > largest {
		t.Errorf("a beat of %d bytes, want at most %d", n, largest)
	}
	list := make([]Announcement, 128)
	for i := range list {
		list[i] = Announcement{strings.Repeat("t", topicBytes), strings.Repeat("s", subjectBytes), 1 << 62}
	}
	if n := len((&announcements{id: m.id, counter: 1 << 62, list: list}).append(nil)); n > largest {
		t.Errorf("announcements of %d bytes, want at most %d", n, largest)
	}
}

func samples() map[string]interface{ append([]byte) []byte } {
	e, third, second, old := full(), fullOfThree(), fullOfTwo(), fullOfOne()
	small := detectors.Event{StreamTime: noon, Time: noon, Kind: detectors.Login, Outcome: detectors.Failure,
		Source: detectors.Source{Address: netip.MustParseAddr("203.0.113.7"), Network: netip.MustParsePrefix("203.0.113.7/32")}}
	id, other := senderID{"gate-1", 7}, senderID{"gate-2", 9}
	return map[string]interface{ append([]byte) []byte }{
		"events":        &events{id: id, first: 41, bodies: [][]byte{appendEvent(nil, &small), appendEvent(nil, &old)}},
		"events2":       &events{id: id, first: 41, bodies: [][]byte{appendEvent(nil, &small), appendEvent(nil, &second)}},
		"events3":       &events{id: id, first: 41, bodies: [][]byte{appendEvent(nil, &small), appendEvent(nil, &third)}},
		"events4":       &events{id: id, first: 41, bodies: [][]byte{appendEvent(nil, &small), appendEvent(nil, &e)}},
		"beat":          &beat{id: id, clock: noon.Truncate(time.Millisecond), sent: 42, known: []known{{other, 5, 8}}},
		"farewell":      &beat{id: id, clock: noon.Truncate(time.Millisecond), sent: 42, leaving: true},
		"announcements": &announcements{id: id, counter: 3, list: []Announcement{{"decisions", "address/203.0.113.7", 7}}},
		"want":          &want{id: id, of: other, lo: 3, hi: 9, since: 1700000000, anyone: true},
		"gone":          &gone{id: other, of: other, lo: 3, hi: 4, old: true},
	}
}

func TestGolden(t *testing.T) {
	for name, m := range samples() {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join("testdata", name+".golden")
			got := hex.EncodeToString(m.append(nil)) + "\n"
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%swant\n%s", got, want)
			}
			back, err := decodeEnvelope(m.append(nil))
			if err != nil || !reflect.DeepEqual(back, m) {
				t.Errorf("%v: got %+v, want %+v", err, back, m)
			}
		})
	}
}

func TestEnvelopesAreDecodedStrictly(t *testing.T) {
	good := (&gone{id: senderID{"a", 1}, of: senderID{"b", 2}, lo: 3, hi: 4}).append(nil)
	change := func(at int, to ...byte) []byte { return append(append(bytes.Clone(good[:at]), to...), good[at+1:]...) }
	tests := map[string][]byte{
		"empty":           {},
		"too large":       make([]byte, largest+1),
		"no node":         {version, goneKind, 0, 1},
		"trailing":        append(bytes.Clone(good), 0),
		"long number":     change(4, 0x81, 0x00),
		"a bool of 2":     change(len(good)-1, 2),
		"empty interval":  change(len(good)-2, 2),
		"unknown kind":    change(1, 99),
		"journal's kind":  change(1, markKind),
		"count too large": {version, eventsKind, 1, 'a', 1, 1, 0xff, 0xff, 0xff, 0xff, 0x0f},
		"sequence 0":      {version, eventsKind, 1, 'a', 1, 0, 1, 0},
	}
	for n := range good {
		tests["cut at "+string(rune('a'+n))] = good[:n]
	}
	for name, b := range tests {
		if m, err := decodeEnvelope(b); err == nil {
			t.Errorf("%s: got %+v", name, m)
		} else if errors.Is(err, errVersion) && len(b) < 1000 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := decodeEnvelope(change(0, 2)); !errors.Is(err, errVersion) {
		t.Errorf("another version: %v", err)
	}
	for of, name := range []string{"events", "events2", "events3", "events4"} {
		b := samples()[name].append(nil)
		if int(b[0]) != of+1 {
			t.Errorf("%s: got version %d, want the lowest that has its fields", name, b[0])
		}
		for other := byte(version); other <= newest; other++ {
			if b[0] = other; int(other) == of+1 {
				continue
			}
			if _, err := decodeEnvelope(b); !errors.Is(err, errCanonical) {
				t.Errorf("%s as version %d: %v", name, other, err)
			}
		}
		b[0] = newest + 1
		if _, err := decodeEnvelope(b); !errors.Is(err, errVersion) {
			t.Errorf("%s of a version to come: %v", name, err)
		}
	}
}

func FuzzEnvelope(f *testing.F) {
	for _, m := range samples() {
		f.Add(m.append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeEnvelope(b)
		if err != nil {
			return
		}
		if back := m.(interface{ append([]byte) []byte }).append(nil); !bytes.Equal(back, b) {
			t.Fatalf("%x is read as %+v, which is %x", b, m, back)
		}
		if m, ok := m.(*events); ok {
			for _, body := range m.bodies {
				if e, err := decodeEvent(body); err == nil && !bytes.Equal(appendEvent(nil, &e), body) {
					t.Fatalf("%x is read as %+v, which is %x", body, e, appendEvent(nil, &e))
				}
			}
		}
	})
}
