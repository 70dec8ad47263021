package stream

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kidoban/kidoban/detectors"
)

// inject puts an envelope into a log as if somebody with access to Redis did.
func (w *world) inject(log int, payload []byte) {
	n := &simulated{w: w}
	_, _ = n.append(context.Background(), []outgoing{{log, payload}})
}

// TestHostileTimes has events come from a clock of another age, forwards and back.
func TestHostileTimes(t *testing.T) {
	w := newWorld()
	n := w.add(t, "a", t.TempDir(), nil)
	defer func() { n.crash() }()
	var seen []detectors.Event
	n.stream.Subscribe(func(e detectors.Event) { seen = append(seen, e) })
	moments := []time.Time{time.Unix(1<<62, 0), time.Unix(1<<40, 0), w.now.Add(time.Hour), w.now.Add(Skew), w.now, time.Unix(0, 0), time.Unix(-1<<62, 0)}
	for i, at := range moments {
		e := detectors.Event{StreamTime: at, Time: at.Add(Skew)}
		m := events{id: senderID{"b", 1}, first: uint64(i + 1), bodies: [][]byte{appendEvent(nil, &e)}}
		w.inject(eventLog, m.append(nil))
	}
	n.receive() // Subscribe in start checks the times too
	if len(seen) != len(moments) {
		t.Fatalf("%d events of %d", len(seen), len(moments))
	}
	for i, e := range seen {
		if e.StreamTime.After(w.now.Add(Skew)) || e.Time.After(w.now.Add(2*Skew)) {
			t.Errorf("%v became %v, %v", moments[i], e.StreamTime, e.Time)
		}
	}
	if st := n.stream.Status(); st.Clamped != 3 {
		t.Errorf("%d moved back, want 3", st.Clamped)
	}
	// Old times alone do not make the journal end a file each second.
	for i := range 100 {
		w.now = w.now.Add(time.Second)
		e := detectors.Event{StreamTime: time.Unix(0, 0), Time: time.Unix(0, 0)}
		w.inject(eventLog, (&events{id: senderID{"b", 1}, first: uint64(len(moments) + i + 1), bodies: [][]byte{appendEvent(nil, &e)}}).append(nil))
		n.receive()
		n.stream.tend()
	}
	if list := files(t, n.dir); len(list) > 2 {
		t.Errorf("%d files of the journal", len(list))
	}
}

// TestHostileBounds has somebody write what would make a node remember without end.
func TestHostileBounds(t *testing.T) {
	w := newWorld()
	n := w.add(t, "a", "", nil)
	const far = 1 << 62
	b := senderID{"b", 1}
	batch := []outgoing{{eventLog, (&beat{id: b, sent: far}).append(nil)}}
	for i := range uint64(4400) { // nodes that nobody knows, with clocks that are wrong
		id := senderID{fmt.Sprint("n", i), i}
		e := detectors.Event{StreamTime: w.now.Add(time.Hour), Time: w.now.Add(time.Hour)}
		batch = append(batch, outgoing{eventLog, (&beat{id: id, sent: far}).append(nil)},
			outgoing{eventLog, (&events{id: id, first: 9, bodies: [][]byte{appendEvent(nil, &e)}}).append(nil)})
	}
	for i := range uint64(1200) { // and one of which every other event is gone
		batch = append(batch, outgoing{repairLog, (&gone{id: b, of: b, lo: 10 + 2*i, hi: 10 + 2*i}).append(nil)},
			outgoing{repairLog, (&want{id: b, of: n.stream.self, lo: i + 1, hi: far}).append(nil)})
	}
	if _, err := (&simulated{w: w}).append(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	for range len(batch)/readEntries + 1 {
		n.receive()
		for id, one := range n.stream.all {
			if len(one.gaps) > mostGaps {
				t.Fatalf("%v has %d gaps", id, len(one.gaps))
			}
		}
		n.send()
		w.now = w.now.Add(time.Second)
	}
	s := n.stream
	if len(s.peers) > mostPeers || len(s.all) > mostSenders || len(s.health.told) > mostTold || len(s.answers) > mostAnswers || len(s.replied) > mostAnswers {
		t.Errorf("%d peers, %d lives, %d complaints, %d answers", len(s.peers), len(s.all), len(s.health.told), len(s.answers))
	}
	// A day later they are forgotten, and events still go their way.
	w.now = w.now.Add(forgetAfter + time.Minute)
	c := w.add(t, "c", "", nil)
	w.logs = [logs][]incoming{}
	w.settle(time.Minute)
	s.tend()
	if len(s.peers) != 1 {
		t.Errorf("%d peers, want 1", len(s.peers))
	}
	c.publish()
	w.settle(time.Minute)
	if n.applied[detectors.EventKey{Node: "c", Incarnation: 1, Sequence: 1}] != 1 {
		t.Error("an event of an honest node did not arrive")
	}
}

// TestForgottenLife does not tell once more what the journals' age has taken.
func TestForgottenLife(t *testing.T) {
	w := newWorld()
	n := w.add(t, "a", "", nil)
	for i, age := range []time.Duration{31 * 24 * time.Hour, time.Hour} {
		e := detectors.Event{StreamTime: w.now.Add(-age), Time: w.now.Add(-age)}
		w.inject(repairLog, (&events{id: senderID{"b", uint64(i + 1)}, first: 1, bodies: [][]byte{appendEvent(nil, &e)}}).append(nil))
	}
	n.receive()
	if n.applied[detectors.EventKey{Node: "b", Incarnation: 1, Sequence: 1}] != 0 || len(n.applied) != 1 {
		t.Errorf("applied %v, want the younger", n.applied)
	}
}

// TestBeatsAlone hears of one more event each second, and never gets one.
func TestBeatsAlone(t *testing.T) {
	w := newWorld()
	n := w.add(t, "a", "", nil)
	for i := range uint64(4 * mostGaps) {
		w.inject(eventLog, (&beat{id: senderID{"b", 1}, clock: w.now, sent: i + 1}).append(nil))
		n.receive()
		n.send()
		w.now = w.now.Add(time.Second)
		w.logs = [logs][]incoming{eventLog: w.logs[eventLog][len(w.logs[eventLog])-1:]}
	}
	if one := n.stream.all[senderID{"b", 1}]; len(one.gaps) > mostGaps {
		t.Errorf("%d gaps", len(one.gaps))
	}
	if st := n.stream.Status(); st.Lost+st.GapsOpen+st.Skipped != 4*mostGaps {
		t.Errorf("status %+v", st)
	}
}

func TestNodeNames(t *testing.T) {
	for name, valid := range map[string]bool{
		"gate-1": true, "a/b": true, "門番": true, "a b": true, strings.Repeat("n", nodeBytes): true,
		"": false, strings.Repeat("n", nodeBytes+1): false, "a\nb": false, "a\x00": false, "\xff": false, "\u0085": false,
	} {
		s, err := Open(Config{Node: name, Incarnation: 1, Now: time.Now})
		if (err == nil) != valid {
			t.Errorf("%q: %v", name, err)
		}
		if err == nil {
			s.Close()
		}
		if _, err := decodeEnvelope((&beat{id: senderID{name, 1}, clock: noon}).append(nil)); (err == nil) != valid {
			t.Errorf("%q in an envelope: %v", name, err)
		}
	}
}

// TestQuietNode lives for longer than the journal's age after its last event, and is
// neither lost nor told again.
func TestQuietNode(t *testing.T) {
	w := newWorld()
	short := func(c *Config) { c.JournalAge = time.Hour }
	a, b := w.add(t, "a", t.TempDir(), short), w.add(t, "b", t.TempDir(), short)
	defer a.crash()
	defer b.crash()
	for range 5 {
		a.publish()
	}
	w.settle(time.Minute)
	for range 30 {
		w.now = w.now.Add(5 * time.Minute)
		w.settle(4 * time.Second)
	}
	w.logs[eventLog] = slices.Clone(w.logs[eventLog][:1]) // they read from the start
	w.settle(time.Minute)
	w.equal(t, nil, false)
	if st := b.stream.Status(); st.Lost+st.Skipped > 0 || len(b.applied) != 5 {
		t.Errorf("%d events, %+v", len(b.applied), st)
	}
}

// TestRewindWhileSending has the server lose entries while an answer is on its way:
// the answer is about what is gone.
func TestRewindWhileSending(t *testing.T) {
	w := newWorld()
	a, b := w.add(t, "a", "", nil), w.add(t, "b", "", nil)
	w.settle(time.Minute)
	a.publish()
	w.now = w.now.Add(2 * time.Second)
	a.meanwhile = func() {
		w.logs, w.last = [logs][]incoming{}, [logs]position{}
		a.receive()
	}
	a.send()
	if st := a.stream.Status(); st.Rewinds != 1 || st.Spooled != 1 {
		t.Errorf("status %+v, want one event to be sent again", st)
	}
	w.settle(time.Minute)
	if st := b.stream.Status(); len(b.applied) != 1 || st.Repaired != 0 {
		t.Errorf("%d events, %+v", len(b.applied), st)
	}
}

// TestTrimmedWhileBehind is behind by more than Redis keeps, which is no reason to
// send all again.
func TestTrimmedWhileBehind(t *testing.T) {
	w := newWorld()
	a, b := w.add(t, "a", "", nil), w.add(t, "b", "", nil)
	w.settle(time.Minute)
	b.most = 1
	for range 20 {
		a.publish()
		a.send()
	}
	b.receive()
	w.logs[eventLog] = w.logs[eventLog][len(w.logs[eventLog])-3:]
	w.fault = true
	w.now = w.now.Add(2 * time.Second)
	b.send()
	b.receive()
	if st := b.stream.Status(); st.Rewinds != 0 {
		t.Errorf("status %+v, want no rewind", st)
	}
	w.settle(time.Minute)
	w.equal(t, nil, false)
}

// TestRewindIsBounded sends no more again than new nodes ask for.
func TestRewindIsBounded(t *testing.T) {
	w := newWorld()
	a := w.add(t, "a", t.TempDir(), func(c *Config) { c.JournalBytes = 4 * smallestSegment })
	defer a.crash()
	w.settle(time.Minute)
	for range 2000 {
		a.publish()
	}
	w.settle(time.Minute)
	w.now = w.now.Add(2 * time.Hour)
	for range 1000 {
		a.publish()
	}
	w.settle(time.Minute)
	w.inject(eventLog, (&beat{id: senderID{"b", 1}, clock: w.now}).append(nil)) // it has nothing of ours
	a.receive()
	w.logs, w.last = [logs][]incoming{}, [logs]position{}
	w.now = w.now.Add(time.Second)
	a.receive()
	if st := a.stream.Status(); st.Rewinds != 1 || st.Spooled < 1000 || st.Spooled > 2000 || st.Unsent != 0 {
		t.Errorf("status %+v, want the last thousand to be sent again, and not all", st)
	}
}
