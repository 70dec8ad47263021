package record_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/gateway/record"
)

var start = time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)

func key(id string, b byte) record.Key {
	secret := make([]byte, 32)
	for i := range secret {
		secret[i] = b
	}
	return record.Key{ID: id, Secret: func() []byte { return secret }}
}

func keys() []record.Key { return []record.Key{key("key-1", 1)} }

// clock is a clock that stands still until it is moved.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func open(t testing.TB, dir string, edit func(*record.Config)) *record.Log {
	t.Helper()
	c := record.Config{Node: "gate-1", Keys: keys, Reserve: -1}
	if edit != nil {
		edit(&c)
	}
	l, err := record.Open(dir, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	})
	return l
}

type note struct {
	N int `json:"n"`
}

func appendOne(t testing.TB, l *record.Log, n int) record.ID {
	t.Helper()
	id, err := l.Append(context.Background(), record.Draft{Kind: "login.success", Body: note{n}})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// entries reads a record whole.
func entries(t testing.TB, dir string, q record.Query) []record.Entry {
	t.Helper()
	var all []record.Entry
	if err := record.Read(context.Background(), dir, keys, q, func(e record.Entry) error {
		all = append(all, e)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

func check(t testing.TB, dir string) *record.Report {
	t.Helper()
	r, err := record.Check(context.Background(), dir, keys, record.Contents)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// sound checks a record and fails unless all is well.
func sound(t testing.TB, dir string) *record.Report {
	t.Helper()
	r := check(t, dir)
	if !r.OK() {
		t.Fatalf("faults: %+v", r.Faults)
	}
	return r
}

func TestAppendAndRead(t *testing.T) {
	dir := t.TempDir()
	c := &clock{now: start}
	set := func(cfg *record.Config) { cfg.Now, cfg.SegmentBytes = c.Now, 3<<10 }
	l := open(t, dir, set)
	var want []string
	for i := range 30 {
		c.move(time.Minute)
		id := appendOne(t, l, i)
		if want = append(want, id.String()); id.String() != fmt.Sprintf("gate-1/%d", i+1) {
			t.Fatalf("entry %d is %s", i, id)
		}
		if s := l.Status(); s.Last != id {
			t.Fatalf("the last is %v after %v", s.Last, id)
		}
		if i == 20 { // numbers go on after a restart
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			l = open(t, dir, set)
		}
	}
	ids, err := l.AppendMany(t.Context(), []record.Draft{
		{Kind: "decision.register", Reason: "decision", Body: json.RawMessage(`{"n": 30}`), Time: start},
		{Kind: "decision.lift", Time: start.Add(time.Nanosecond)},
	})
	if err != nil || len(ids) != 2 || ids[0].Sequence != 31 || ids[1].Sequence != 32 {
		t.Fatalf("got %v, %v", ids, err)
	}
	if s := l.Status(); s.Segments < 3 || s.Segments != len(record.Segments(dir)) || s.Queue != 0 || s.Why != "" || s.Free <= 0 {
		t.Errorf("status %+v", s)
	}
	var got []string
	if err := l.Read(t.Context(), record.Query{}, func(e record.Entry) error {
		got = append(got, e.ID().String())
		var n note
		if err := json.Unmarshal(e.Body, &n); err != nil {
			return err
		}
		if n.N != int(e.Sequence)-1 && e.Sequence != 32 || e.Class != record.Waiting || e.Count != 1 || e.Err != nil {
			t.Errorf("entry %+v", e)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(append(want, "gate-1/31", "gate-1/32"), got); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
	for _, q := range []struct {
		name  string
		query record.Query
		want  []uint64
	}{
		{"after", record.Query{After: 30}, []uint64{31, 32}},
		{"from", record.Query{From: start.Add(29 * time.Minute)}, []uint64{29, 30}},
		{"until", record.Query{Until: start.Add(2 * time.Minute)}, []uint64{1, 31, 32}},
		{"kind", record.Query{Kinds: []string{"decision.lift"}}, []uint64{32}},
		{"kinds that begin so", record.Query{Kinds: []string{"decision."}}, []uint64{31, 32}},
		{"part of a kind", record.Query{Kinds: []string{"decision"}}, nil},
		{"class", record.Query{Class: record.Aggregated}, nil},
		{"beyond the end", record.Query{After: 1000}, nil},
	} {
		var got []uint64
		for _, e := range entries(t, dir, q.query) {
			got = append(got, e.Sequence)
		}
		if diff := cmp.Diff(q.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", q.name, diff)
		}
	}
	stop := errors.New("stop")
	if err := l.Read(t.Context(), record.Query{}, func(record.Entry) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v, want the caller's error", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if r := sound(t, dir); r.Entries != 32 || r.Opened != 32 || r.First != 1 || r.Last != 32 || r.Node != "gate-1" {
		t.Errorf("report %+v", r)
	}
}

func TestAtOnce(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, func(c *record.Config) { c.SegmentBytes = 64 << 10 })
	const callers, each = 16, 40
	var mu sync.Mutex
	got := make(map[record.ID]int)
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for i := range each {
				n := c*each + i
				var ids []record.ID
				var err error
				if i%10 == 9 {
					ids, err = l.AppendMany(t.Context(), []record.Draft{{Kind: "many", Body: note{n}}, {Kind: "many", Body: note{n}}})
				} else {
					var id record.ID
					id, err = l.Append(t.Context(), record.Draft{Kind: "one", Body: note{n}})
					ids = []record.ID{id}
				}
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				for _, id := range ids {
					if _, taken := got[id]; taken {
						t.Errorf("%v twice", id)
					}
					got[id] = n
				}
				mu.Unlock()
				l.Count(record.Denial{Kind: "denial.limit", Key: fmt.Sprint(c)})
			}
		})
	}
	wg.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	r := sound(t, dir)
	if r.Waiting != uint64(len(got)) || r.Aggregated == 0 || r.Entries != r.Last {
		t.Errorf("report %+v, and %d were acknowledged", r, len(got))
	}
	counted := uint64(0)
	for _, e := range entries(t, dir, record.Query{}) {
		if e.Class == record.Aggregated {
			counted += e.Count
			continue
		}
		var n note
		if err := json.Unmarshal(e.Body, &n); err != nil || got[e.ID()] != n.N {
			t.Errorf("%v has %s, %v, want %d", e.ID(), e.Body, err, got[e.ID()])
		}
	}
	if counted != callers*each {
		t.Errorf("%d denials counted, want %d", counted, callers*each)
	}
}

func TestRefusedDrafts(t *testing.T) {
	l := open(t, t.TempDir(), nil)
	long := strings.Repeat("x", record.BodyMax)
	for name, d := range map[string]record.Draft{
		"no kind":       {},
		"odd kind":      {Kind: "a b"},
		"own kind":      {Kind: record.Recovered},
		"abandonment":   {Kind: record.Abandoned},
		"odd reason":    {Kind: "a", Reason: "ä"},
		"no JSON":       {Kind: "a", Body: json.RawMessage("{")},
		"not marshaled": {Kind: "a", Body: func() {}},
		"too long":      {Kind: "a", Body: long},
		"too late":      {Kind: "a", Time: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)},
	} {
		if id, err := l.Append(t.Context(), d); err == nil || !id.IsZero() || errors.Is(err, record.ErrUnavailable) {
			t.Errorf("%s: got %v, %v", name, id, err)
		}
	}
	if _, err := l.Append(t.Context(), record.Draft{Kind: "a", Body: long[2:]}); err != nil {
		t.Errorf("the longest body: %v", err)
	}
	if ids, err := l.AppendMany(t.Context(), nil); ids != nil || err != nil {
		t.Errorf("nothing: got %v, %v", ids, err)
	}
	many := slices.Repeat([]record.Draft{{Kind: "a"}}, 513)
	if _, err := l.AppendMany(t.Context(), many); err == nil {
		t.Error("513 entries at once")
	}
	if _, err := l.AppendMany(t.Context(), slices.Repeat([]record.Draft{{Kind: "a", Body: long[2:]}}, 100)); err == nil {
		t.Error("6 MiB at once")
	}
	if ids, err := l.AppendMany(t.Context(), many[1:]); err != nil || len(ids) != 512 || ids[511].Sequence != 513 {
		t.Errorf("512 at once: %d, %v", len(ids), err)
	}
	if err := l.Abandon(t.Context(), record.ID{Node: "gate-2", Sequence: 1}, "why"); err == nil {
		t.Error("another node's entry was abandoned")
	}
}

func TestOpenRefuses(t *testing.T) {
	good := record.Config{Node: "gate-1", Keys: keys}
	for name, edit := range map[string]func(*record.Config){
		"no node":        func(c *record.Config) { c.Node = "" },
		"odd node":       func(c *record.Config) { c.Node = "a/b" },
		"no keys":        func(c *record.Config) { c.Keys = nil },
		"empty keys":     func(c *record.Config) { c.Keys = func() []record.Key { return nil } },
		"large segments": func(c *record.Config) { c.SegmentBytes = 1<<30 + 1 },
		"negative quota": func(c *record.Config) { c.Quota = -1 },
	} {
		c := good
		edit(&c)
		if l, err := record.Open(t.TempDir(), c); err == nil {
			t.Errorf("%s: opened", name)
			l.Close()
		}
	}
	dir := t.TempDir()
	l := open(t, dir, nil)
	appendOne(t, l, 1)
	if _, err := record.Open(dir, good); !errors.Is(err, record.ErrInUse) || !strings.Contains(err.Error(), dir) {
		t.Errorf("a second writer: got %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	other := good
	other.Node = "gate-2"
	if _, err := record.Open(dir, other); err == nil || !strings.Contains(err.Error(), "gate-1") {
		t.Errorf("another node: got %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "1.seg"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := record.Open(dir, good); err == nil || !strings.Contains(err.Error(), "1.seg") {
		t.Errorf("a file called otherwise: got %v", err)
	}
}

// Who only looks does not keep a gate from starting.
func TestCheckBesideOpen(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, nil)
	appendOne(t, l, 0)
	l.Close()
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if r, err := record.Check(context.Background(), dir, nil, record.Structure); err != nil || !r.OK() {
				t.Errorf("%+v, %v", r, err)
				return
			}
		}
	}()
	for range 300 {
		open(t, dir, nil).Close()
	}
	close(stop)
	<-done
}

func TestClosed(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, nil)
	appendOne(t, l, 1)
	l.Count(record.Denial{Kind: "denial"})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(t.Context(), record.Draft{Kind: "a"}); !errors.Is(err, record.ErrUnavailable) || !errors.Is(err, record.ErrClosed) {
		t.Errorf("got %v", err)
	}
	if err := l.Flush(t.Context()); !errors.Is(err, record.ErrClosed) {
		t.Errorf("got %v", err)
	}
	if err := l.Close(); err != nil {
		t.Errorf("closing again: %v", err)
	}
	if all := entries(t, dir, record.Query{}); len(all) != 2 || all[1].Class != record.Aggregated {
		t.Errorf("entries %+v, want what was counted at the end", all)
	}
}

func TestIntents(t *testing.T) {
	dir := t.TempDir()
	set := func(cfg *record.Config) { cfg.SegmentBytes = 2 << 10 }
	l := open(t, dir, set)
	var acts []record.ID
	for i := range 20 {
		appendOne(t, l, i)
		id, err := l.Append(t.Context(), record.Draft{Time: start, Kind: record.Acts + "decision.register", Body: note{i}})
		if err != nil {
			t.Fatal(err)
		}
		acts = append(acts, id)
	}
	for _, i := range []int{3, 18} {
		if err := l.Abandon(t.Context(), acts[i], "the database was away"); err != nil {
			t.Fatal(err)
		}
	}
	check := func(what string, want ...int) {
		t.Helper()
		for _, how := range []string{"running", "restarted"} {
			in, err := l.Intents(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var got []int
			for _, i := range in {
				got = append(got, slices.Index(acts, i.ID))
				if i.Kind != "act.decision.register" || !i.Time.Equal(start) {
					t.Errorf("intent %+v", i)
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s, %s (-want +got):\n%s", what, how, diff)
			}
			l.Close()
			l = open(t, dir, set)
		}
	}
	settle := func(act int) {
		t.Helper()
		if err := l.Settle(t.Context(), acts[act].Sequence); err != nil {
			t.Fatal(err)
		}
	}
	check("nothing settled", 19, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 2, 1, 0)
	settle(15)
	check("some settled", 19, 17, 16)
	settle(2)
	check("settled before", 19, 17, 16)
	settle(19)
	check("all settled")
}

func TestKeysRotate(t *testing.T) {
	dir := t.TempDir()
	var mu sync.Mutex
	ring := keys()
	l := open(t, dir, func(c *record.Config) {
		c.Keys = func() []record.Key { mu.Lock(); defer mu.Unlock(); return ring }
	})
	appendOne(t, l, 0)
	mu.Lock()
	ring = append([]record.Key{key("a key with a name of more than 16 bytes", 2)}, ring...)
	mu.Unlock()
	appendOne(t, l, 1)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		keys func() []record.Key
		open []bool
	}{
		{"both", func() []record.Key { return ring }, []bool{true, true}},
		{"the old one", keys, []bool{true, false}},
		{"the new one", func() []record.Key { return ring[:1] }, []bool{false, true}},
		{"none", nil, []bool{false, false}},
	} {
		var got []bool
		if err := record.Read(t.Context(), dir, test.keys, record.Query{}, func(e record.Entry) error {
			if e.Err != nil && !errors.Is(e.Err, record.ErrNoKey) || (e.Err == nil) != (e.Body != nil) {
				t.Errorf("%s: %v, %s", test.name, e.Err, e.Body)
			}
			got = append(got, e.Err == nil)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(test.open, got); diff != "" {
			t.Errorf("%s: open (-want +got):\n%s", test.name, diff)
		}
		r, err := record.Check(t.Context(), dir, test.keys, record.Contents)
		if err != nil || !r.OK() || r.Opened+r.Sealed != 2 {
			t.Errorf("%s: %+v, %v", test.name, r, err)
		}
	}
	wrong := func() []record.Key { return []record.Key{key("key-1", 9)} }
	if r, err := record.Check(t.Context(), dir, wrong, record.Contents); err != nil || r.OK() {
		t.Errorf("another key of the same name: %+v, %v", r, err)
	}
	short := func() []record.Key { return []record.Key{{ID: "key-1", Secret: func() []byte { return nil }}} }
	if err := record.Read(t.Context(), dir, short, record.Query{}, nil); err == nil || !strings.Contains(err.Error(), "key-1") {
		t.Errorf("a key without bytes: got %v", err)
	}
}

// Where a slot was overwritten, the body is gone and all else stands.
func TestErased(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, func(c *record.Config) { c.SegmentBytes = 1 << 10 })
	for i := range 6 {
		appendOne(t, l, i)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	before := sound(t, dir)
	places, err := record.Places(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{0, 5} {
		overwrite(t, places[i].Path, places[i].SlotAt, record.ErasedSlot)
	}
	r := sound(t, dir)
	if r.Erased != 2 || r.Opened != 4 || r.Head != before.Head {
		t.Errorf("report %+v", r)
	}
	for _, e := range entries(t, dir, record.Query{}) {
		if gone := e.Sequence == 1 || e.Sequence == 6; errors.Is(e.Err, record.ErrErased) != gone || (e.Body == nil) != gone {
			t.Errorf("entry %d: %v, %s", e.Sequence, e.Err, e.Body)
		}
	}
	l = open(t, dir, nil)
	if id := appendOne(t, l, 6); id.Sequence != 7 {
		t.Errorf("goes on with %v", id)
	}
}

func overwrite(t testing.TB, path string, at int64, b []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(b, at)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestID(t *testing.T) {
	for text, good := range map[string]bool{
		"gate-1/1": true, "A.b_c-9/18446744073709551615": true,
		"": false, "gate-1": false, "gate-1/": false, "/1": false, "gate-1/0": false, "gate-1/01": false, "gate-1/+1": false,
		"gate-1/-1": false, "a/b/1": false, "a b/1": false, "gate-1/18446744073709551616": false, strings.Repeat("x", 65) + "/1": false,
	} {
		id, err := record.ParseID(text)
		if (err == nil) != good || good && id.String() != text || !good && !id.IsZero() {
			t.Errorf("%q: got %v, %v", text, id, err)
		}
	}
}
