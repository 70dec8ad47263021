package main

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/gateway/record"
	"github.com/kidoban/kidoban/gateway/storage"
	"github.com/kidoban/kidoban/gateway/storage/storagetest"
)

// A few points a database are enough to see that the drill itself works; what is
// promised is shown with -drill.points 200.
var (
	drillPoints = flag.Int("drill.points", 6, "how many times the crash drill kills the gate, per database")
	drillSeed   = flag.Uint64("drill.seed", 7, "what the crash drill draws its points from")
)

// TestCrash kills the gate at seeded points under a load of log-ins and decisions,
// tears the ends of its files at some of them, and looks after each restart at
// everything that was acknowledged before: in the database and on the record.
func TestCrash(t *testing.T) {
	for _, database := range []string{"sqlite", "postgres"} {
		t.Run(database, func(t *testing.T) {
			t.Parallel()
			var options []string
			if database == "postgres" {
				options = append(options, "database "+storagetest.Postgres(t))
			}
			backend := newTown(t, 400)
			d := &crashDrill{
				t: t, backend: backend, node: newNode(t, "crash-"+database, backend, options...),
				chance: rand.New(rand.NewPCG(*drillSeed, uint64(len(database)))), settled: make(map[string]bool),
			}
			began := time.Now()
			for point := range *drillPoints {
				d.start()
				if point == 0 && database == "postgres" { // the other node stays up
					d.other = newNode(t, "other", backend, options...)
					shareKeys(t, d.node, d.other)
					d.other.start()
				}
				d.check(point)
				if t.Failed() {
					t.Fatalf("after point %d of %s\n%s", point, database, tail(d.node.said(), 60))
				}
				d.load(point)
				switch d.chance.IntN(6) {
				case 0, 1:
					d.tear()
				case 2:
					d.startInPart()
				}
			}
			d.start()
			clear(d.settled) // once more, all of it
			d.check(*drillPoints)
			d.node.stop()
			if out, err := kidoban(d.node.dir, "record", "verify", d.paper()); err != nil {
				t.Errorf("record verify: %v\n%s", err, out)
			}
			if t.Failed() {
				t.Logf("the end of the log:\n%s", tail(d.node.said(), 60))
			}
			t.Logf("%d points in %v: %d sessions, %d ended, %d decisions, %d lifted; %d acts happened unheard and %d were taken back; %d ends of the record torn and %d of the events, %d starts cut off",
				*drillPoints, time.Since(began).Round(time.Millisecond), len(d.sessions), d.ended, len(d.decisions), d.lifted, d.unheard, d.takenBack, d.torn, d.tornEvents, d.parts)
		})
	}
}

// crashDrill remembers what the gate acknowledged.
type crashDrill struct {
	t       testing.TB
	backend *town
	node    *node // that is killed
	other   *node // on the same database; nil: there is none
	chance  *rand.Rand

	mu        sync.Mutex // guards what follows
	sessions  []*knownSession
	decisions []*knownDecision
	ended     int
	lifted    int
	next      int

	torn, tornEvents int             // ends of files, in all
	parts            int             // starts that were cut off
	tore, toreEvents bool            // since the last start
	settled          map[string]bool // entries of acts that nobody heard of and that were looked at
	unheard          int             // of them, those that happened
	takenBack        int             // those that did not
}

type knownSession struct {
	visitor *visitor
	account int64
	state   string // live, ended; empty while an end was asked for and not answered
}

type knownDecision struct {
	id, value string
	state     string // live, lifted; empty while a lift was asked for and not answered
	elsewhere bool   // the other node alone acknowledged it
}

// start starts the gate, which has to say which ends it found torn.
func (d *crashDrill) start() {
	d.t.Helper()
	d.node.mu.Lock()
	d.node.log.Reset()
	d.node.mu.Unlock()
	d.node.start()
	said := d.node.said()
	for _, f := range []struct {
		torn bool
		told string
	}{{d.tore, "the record ended within an entry"}, {d.toreEvents, "the events' journal was repaired"}} {
		if strings.Contains(said, f.told) != f.torn {
			d.t.Errorf("an end was torn: %v, and what is to be told then is %q:\n%s", f.torn, f.told, tail(said, 60))
		}
	}
	d.tore, d.toreEvents = false, false
}

// startInPart starts the gate and kills it when it has said some lines, which is
// while it opens what it keeps, or takes back what was cut off.
func (d *crashDrill) startInPart() {
	d.t.Helper()
	before := strings.Count(d.node.said(), "\n")
	lines := 4 + d.chance.IntN(10)
	if err := d.node.launch(); err != nil {
		d.t.Fatal(err)
	}
	eventually(d.t, 60*time.Second, fmt.Sprintf("%d lines of log", lines), func() bool {
		select {
		case <-d.node.done:
			d.t.Fatalf("the gate ended at its start:\n%s", tail(d.node.said(), 30))
		default:
		}
		return strings.Count(d.node.said(), "\n") >= before+lines
	})
	d.node.kill()
	d.parts++
}

// load works on the gate until a seeded number of acknowledgements, and kills it
// while the rest are under way.
func (d *crashDrill) load(point int) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	quota := 1 + d.chance.IntN(40)
	acknowledged := make(chan struct{}, 1024)
	var workers sync.WaitGroup
	for w := range 6 {
		chance := rand.New(rand.NewPCG(*drillSeed<<32|uint64(point), uint64(w)))
		workers.Go(func() {
			for ctx.Err() == nil {
				ok, err := d.step(ctx, chance)
				if err != nil {
					return // the gate is gone
				}
				if ok {
					select {
					case acknowledged <- struct{}{}:
					case <-ctx.Done():
					}
				}
			}
		})
	}
	late := time.After(60 * time.Second)
wait:
	for range quota {
		select {
		case <-acknowledged:
		case <-late:
			d.t.Errorf("point %d: fewer than %d acts in a minute", point, quota)
			break wait
		}
	}
	d.node.kill()
	cancel()
	workers.Wait()
}

// step does one thing at random and reports whether it was acknowledged. An error
// is that of the connection.
func (d *crashDrill) step(ctx context.Context, chance *rand.Rand) (bool, error) {
	switch chance.IntN(6) {
	case 0, 1:
		return d.login(ctx)
	case 2:
		return d.endSession(chance)
	case 3, 4:
		return d.register()
	default:
		return d.lift(chance)
	}
}

// number is another one each time.
func (d *crashDrill) number() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.next++
	return d.next
}

func (d *crashDrill) login(ctx context.Context) (bool, error) {
	n := d.number()
	person := d.backend.people[n%len(d.backend.people)]
	v := newVisitor(fmt.Sprintf("198.18.%d.%d", n/250%250, n%250+1))
	status, err := v.login(ctx, d.node, person)
	if err != nil {
		return false, err
	}
	if status != http.StatusOK {
		d.t.Errorf("a log-in was answered with %d", status)
		return false, nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sessions = append(d.sessions, &knownSession{visitor: v, account: int64(person.ID), state: "live"})
	return true, nil
}

func (d *crashDrill) endSession(chance *rand.Rand) (bool, error) {
	d.mu.Lock()
	var s *knownSession
	if len(d.sessions) > 0 {
		s = d.sessions[chance.IntN(len(d.sessions))]
	}
	if s == nil || s.state != "live" {
		d.mu.Unlock()
		return false, nil
	}
	s.state = ""
	d.mu.Unlock()
	status, _, err := s.visitor.do(context.Background(), d.node, http.MethodPost, "/logout", map[string]string{})
	if err != nil {
		return false, err
	}
	if status >= 400 {
		d.t.Errorf("a log-out was answered with %d", status)
		return false, nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s.state = "ended"
	d.ended++
	return true, nil
}

// register registers a decision, sometimes on both nodes at once.
func (d *crashDrill) register() (bool, error) {
	n := d.number()
	k := &knownDecision{value: fmt.Sprintf("203.0.%d.%d", n/250%250, n%250+1), state: "live"}
	var others sync.WaitGroup
	var there string
	if d.other != nil && n%3 == 0 {
		others.Go(func() {
			var err error
			if there, err = d.registerOn(d.other, k.value); err != nil {
				d.t.Errorf("registering on the other node: %v", err)
			}
		})
	}
	here, err := d.registerOn(d.node, k.value)
	others.Wait()
	if here != "" && there != "" && here != there {
		d.t.Errorf("two nodes registered %s as %s and %s", k.value, here, there)
	}
	k.id, k.elsewhere = cmp.Or(here, there), here == ""
	if k.id == "" {
		return false, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.decisions = append(d.decisions, k)
	return here != "", err
}

func (d *crashDrill) registerOn(n *node, value string) (id string, err error) {
	status, body, err := n.call(http.MethodPost, "/v1/decisions", map[string]string{
		"scope": "address", "value": value, "action": "refuse", "ttl": "2h", "reason": "drill"})
	if err != nil {
		return "", err
	}
	var got struct{ ID string }
	if status != http.StatusCreated && status != http.StatusOK || json.Unmarshal(body, &got) != nil || got.ID == "" {
		d.t.Errorf("registering on %s was answered with %d %s", n.name, status, body)
	}
	return got.ID, nil
}

func (d *crashDrill) lift(chance *rand.Rand) (bool, error) {
	d.mu.Lock()
	var k *knownDecision
	if len(d.decisions) > 0 {
		k = d.decisions[chance.IntN(len(d.decisions))]
	}
	if k == nil || k.state != "live" {
		d.mu.Unlock()
		return false, nil
	}
	k.state = ""
	d.mu.Unlock()
	status, body, err := d.node.call(http.MethodDelete, "/v1/decisions/"+k.id, nil)
	if err != nil {
		return false, err
	}
	if status >= 300 {
		d.t.Errorf("lifting was answered with %d %s", status, body)
		return false, nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	k.state = "lifted"
	d.lifted++
	return true, nil
}

// paper is where the node keeps its record.
func (d *crashDrill) paper() string { return filepath.Join(d.node.dir, "data", "record") }

// keys open the record.
func (d *crashDrill) keys() []record.Key {
	d.t.Helper()
	ring, err := storage.OpenKeyring(filepath.Join(d.node.dir, "data", "keys.json"), false)
	if err != nil {
		d.t.Fatal(err)
	}
	var keys []record.Key
	for _, k := range ring.All(storage.Seal) {
		keys = append(keys, record.Key{ID: k.ID, Secret: k.Bytes})
	}
	return keys
}

// tear leaves ends as a power cut leaves what nobody was told of: a group of
// entries that was being written is on the disk in part, or has room and nothing
// in it.
func (d *crashDrill) tear() {
	d.t.Helper()
	l, err := record.Open(d.paper(), record.Config{Node: d.node.name, Keys: d.keys})
	if err != nil {
		d.t.Fatal(err)
	}
	group := make([]record.Draft, 3)
	for i := range group {
		group[i] = record.Draft{Kind: record.Acts + "session.begin", Body: map[string]string{"session": "never", "source": "192.0.2.1"}}
	}
	before := l.Status().Bytes
	if _, err := l.AppendMany(context.Background(), group); err != nil {
		d.t.Fatal(err)
	}
	written := l.Status().Bytes - before
	if err := l.Close(); err != nil {
		d.t.Fatal(err)
	}
	file := d.last(d.paper(), "*.seg")
	info, err := os.Stat(file)
	if err != nil {
		d.t.Fatal(err)
	}
	const sector = 512 // is written whole, or not at all
	end := info.Size() - 1 - d.chance.Int64N(written-1)
	zeros := end/sector*sector > info.Size()-written && d.chance.IntN(2) == 0
	if zeros {
		end = end / sector * sector
	}
	if err := os.Truncate(file, end); err != nil {
		d.t.Fatal(err)
	}
	if zeros {
		if err := os.Truncate(file, info.Size()); err != nil {
			d.t.Fatal(err)
		}
	}
	// Cut between two entries, the end is whole.
	if d.tore = zeros || (info.Size()-end)%(written/int64(len(group))) != 0; d.tore {
		d.torn++
	}

	events := d.last(filepath.Join(d.node.dir, "data", "events"), "*.journal")
	if events == "" {
		return
	}
	f, err := os.OpenFile(events, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write([]byte{200, 0, 0, 0, 1, 2, 3, 4, 5}); err != nil { // 200 bytes were to come
		d.t.Fatal(err)
	}
	d.toreEvents = true
	d.tornEvents++
}

// last is the last file of a directory that matches; empty: there is none.
func (d *crashDrill) last(dir, pattern string) string {
	d.t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		d.t.Fatal(err)
	}
	if len(files) == 0 {
		return ""
	}
	return slices.Max(files)
}

// papers is what the record says of acts that were not taken back, by what tells
// them apart.
type papers struct {
	begun      map[string][]string // by source: sessions
	ended      map[string]int      // by session
	registered map[string]int      // by value
	lifted     map[string]int      // by decision
	recovered  int
	acts       []paperAct // all, those that were taken back too
}

type paperAct struct {
	entry, kind string
	abandoned   bool
	body        map[string]string
}

// read reads the record, beside the gate.
func (d *crashDrill) read() papers {
	d.t.Helper()
	p := papers{begun: make(map[string][]string), ended: make(map[string]int), registered: make(map[string]int), lifted: make(map[string]int)}
	taken := make(map[string]bool)
	seen := make(map[string]bool)
	err := record.Read(d.t.Context(), d.paper(), d.keys, record.Query{Class: record.Waiting}, func(e record.Entry) error {
		id := e.ID().String()
		if seen[id] {
			d.t.Errorf("the entry %s is there twice", id)
		}
		seen[id] = true
		switch {
		case e.Kind == record.Recovered:
			p.recovered++
		case e.Kind == record.Abandoned:
			var body struct{ Entry string }
			if err := json.Unmarshal(e.Body, &body); err != nil {
				return err
			}
			taken[body.Entry] = true
		case e.Kind != record.Settled && strings.HasPrefix(e.Kind, record.Acts):
			act := paperAct{entry: id, kind: strings.TrimPrefix(e.Kind, record.Acts)}
			if err := json.Unmarshal(e.Body, &act.body); err != nil {
				return err
			}
			p.acts = append(p.acts, act)
		}
		return nil
	})
	if err != nil {
		d.t.Fatalf("reading the record: %v", err)
	}
	for i := range p.acts {
		a := &p.acts[i]
		if a.abandoned = taken[a.entry]; a.abandoned {
			continue
		}
		switch a.kind {
		case "session.begin":
			p.begun[a.body["source"]] = append(p.begun[a.body["source"]], a.body["session"])
		case "session.end":
			p.ended[a.body["session"]]++
		case "decision.register":
			p.registered[a.body["value"]]++
		case "decision.lift":
			p.lifted[a.body["decision"]]++
		}
	}
	return p
}

// check looks at everything that was acknowledged.
func (d *crashDrill) check(point int) {
	d.t.Helper()
	ctx := context.Background()
	paper := d.read()
	if paper.recovered != d.torn {
		d.t.Errorf("point %d: %d ends were torn and %d are on record", point, d.torn, paper.recovered)
	}
	latest := func(i, n int) bool { return i >= n-60 || i%7 == point%7 } // and a part of the older ones
	heard := make(map[string]bool)                                       // sources and values
	for i, s := range d.sessions {
		begun := paper.begun[s.visitor.address]
		heard[s.visitor.address] = true
		if len(begun) != 1 {
			d.t.Errorf("point %d: session %d of account %d is %d times on record", point, i, s.account, len(begun))
			continue
		}
		ends := paper.ended[begun[0]]
		if s.state == "live" && ends != 0 || s.state == "ended" && ends != 1 || ends > 1 {
			d.t.Errorf("point %d: session %d of account %d is %q, and %d ends are on record", point, i, s.account, s.state, ends)
		}
		if !latest(i, len(d.sessions)) {
			continue
		}
		// A log-out that was cut off may have ended the backend's session alone.
		if status, err := s.visitor.me(ctx, d.node); err != nil || s.state == "live" && status != http.StatusOK || ends > 0 && status == http.StatusOK {
			d.t.Errorf("point %d: session %d of account %d is %q with %d ends on record, and its holder got %d %v", point, i, s.account, s.state, ends, status, err)
		}
		if d.has(fmt.Sprint(s.account), begun[0]) != (ends == 0) {
			d.t.Errorf("point %d: session %d of account %d is %q with %d ends on record, and it is not so", point, i, s.account, s.state, ends)
		}
	}
	for i, k := range d.decisions {
		lifts := paper.lifted[k.id]
		heard[k.value] = true
		if n := paper.registered[k.value]; n > 1 || n == 0 && !k.elsewhere {
			d.t.Errorf("point %d: the registration of %s is %d times on record", point, k.value, n)
		}
		if k.state == "live" && lifts != 0 || k.state == "lifted" && lifts != 1 || lifts > 1 {
			d.t.Errorf("point %d: decision %s is %q, and %d lifts are on record", point, k.id, k.state, lifts)
		}
		if !latest(i, len(d.decisions)) {
			continue
		}
		status, body, err := d.node.call(http.MethodGet, "/v1/decisions/"+k.id, nil)
		var got struct {
			Value  string
			Lifted time.Time
		}
		if err != nil || status != http.StatusOK || json.Unmarshal(body, &got) != nil || got.Value != k.value {
			d.t.Errorf("point %d: decision %s is lost: %d %s %v", point, k.id, status, body, err)
			continue
		}
		if got.Lifted.IsZero() != (lifts == 0) {
			d.t.Errorf("point %d: decision %s was %q with %d lifts on record and is lifted %v", point, k.id, k.state, lifts, got.Lifted)
		}
	}
	live := d.live(point)
	for _, a := range paper.acts {
		subject := map[string]string{"session.begin": a.body["source"], "decision.register": a.body["value"]}[a.kind]
		if subject == "" || d.settled[a.entry] || heard[subject] && !a.abandoned {
			continue
		}
		d.settled[a.entry] = true
		happened := live[subject]
		if a.kind == "session.begin" {
			happened = d.has(a.body["account"], a.body["session"])
		} else if heard[subject] {
			continue // of a registration that was repeated
		}
		if happened == a.abandoned {
			d.t.Errorf("point %d: %s %s (%v): the record says that it was taken back: %v, and it happened: %v", point, a.kind, a.entry, a.body, a.abandoned, happened)
		}
		if point < *drillPoints { // then everything is looked at once more
			if happened {
				d.unheard++
			} else {
				d.takenBack++
			}
		}
	}
}

// has reports whether an account has a session.
func (d *crashDrill) has(account, session string) bool {
	d.t.Helper()
	if account == "" {
		return false
	}
	status, body, err := d.node.call(http.MethodGet, "/v1/accounts/"+account+"/sessions", nil)
	var list struct{ Sessions []auth.Session }
	if err != nil || status != http.StatusOK || json.Unmarshal(body, &list) != nil {
		d.t.Errorf("the sessions of %s: %d %s %v", account, status, body, err)
	}
	return slices.ContainsFunc(list.Sessions, func(s auth.Session) bool { return s.ID == session })
}

// live is the values of live decisions; there is one decision a value, for nothing
// was applied twice.
func (d *crashDrill) live(point int) map[string]bool {
	d.t.Helper()
	seen := make(map[string]bool)
	for cursor := ""; ; {
		status, body, err := d.node.call(http.MethodGet, "/v1/decisions?state=live&limit=200&cursor="+cursor, nil)
		var page struct {
			Decisions []struct{ ID, Value string }
			Next      string
		}
		if err != nil || status != http.StatusOK || json.Unmarshal(body, &page) != nil {
			d.t.Errorf("point %d: listing: %d %s %v", point, status, body, err)
			break
		}
		for _, one := range page.Decisions {
			if seen[one.Value] {
				d.t.Errorf("point %d: %s has two decisions", point, one.Value)
			}
			seen[one.Value] = true
		}
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	return seen
}

// tail is the end of a text.
func tail(text string, lines int) string {
	all := strings.Split(text, "\n")
	return strings.Join(all[max(len(all)-lines, 0):], "\n")
}
