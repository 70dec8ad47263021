package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kidoban/kidoban/gateway/storage/storagetest"
)

// Two points a database are enough to see that the drill itself works; what an
// issue promises is shown with -drill.points 200.
var drillPoints = flag.Int("drill.points", 6, "how many times the crash drill kills the gate, per database")

// TestCrash kills the gate at seeded points under a load of log-ins and decisions,
// and looks after each restart at everything that was acknowledged before.
func TestCrash(t *testing.T) {
	for _, database := range []string{"sqlite", "postgres"} {
		t.Run(database, func(t *testing.T) {
			t.Parallel()
			var options []string
			if database == "postgres" {
				options = append(options, "database "+storagetest.Postgres(t))
			}
			backend := newTown(t, 400)
			d := &crashDrill{t: t, backend: backend, node: newNode(t, "crash-"+database, backend, options...), chance: rand.New(rand.NewPCG(7, uint64(len(database))))}
			for point := range *drillPoints {
				d.node.start()
				d.check(point)
				if t.Failed() {
					t.Fatalf("after point %d of %s\n%s", point, database, tail(d.node.said(), 60))
				}
				d.load(point)
			}
			d.node.start()
			d.check(*drillPoints)
			d.node.stop()
			t.Logf("%d points: %d sessions, %d ended, %d decisions, %d lifted", *drillPoints, len(d.sessions), d.ended, len(d.decisions), d.lifted)
		})
	}
}

// crashDrill remembers what the gate acknowledged.
type crashDrill struct {
	t       *testing.T
	backend *town
	node    *node
	chance  *rand.Rand

	mu        sync.Mutex // guards what follows
	sessions  []*knownSession
	decisions []*knownDecision
	ended     int
	lifted    int
	next      int
}

type knownSession struct {
	visitor *visitor
	account int64
	state   string // live, ended; empty while an end was asked for and not answered
}

type knownDecision struct {
	id, value string
	state     string // live, lifted; empty while a lift was asked for and not answered
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
		chance := rand.New(rand.NewPCG(uint64(point), uint64(w)))
		workers.Go(func() {
			for ctx.Err() == nil {
				if d.step(ctx, chance) {
					select {
					case acknowledged <- struct{}{}:
					case <-ctx.Done():
					}
				}
			}
		})
	}
	late := time.After(20 * time.Second)
	for range quota {
		select {
		case <-acknowledged:
		case <-late:
			d.t.Errorf("point %d: fewer than %d acts in 20 s", point, quota)
		}
	}
	d.node.kill()
	cancel()
	workers.Wait()
}

// step does one thing at random and reports whether it was acknowledged.
func (d *crashDrill) step(ctx context.Context, chance *rand.Rand) bool {
	d.mu.Lock()
	d.next++
	n := d.next
	d.mu.Unlock()
	switch chance.IntN(6) {
	case 0, 1:
		return d.login(ctx, n)
	case 2:
		return d.endSession(chance)
	case 3, 4:
		return d.register(n)
	default:
		return d.lift(chance)
	}
}

func (d *crashDrill) login(ctx context.Context, n int) bool {
	person := d.backend.people[n%len(d.backend.people)]
	v := newVisitor(fmt.Sprintf("198.18.%d.%d", n/250%250, n%250+1))
	status, err := v.login(ctx, d.node, person)
	if err != nil || status != http.StatusOK {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sessions = append(d.sessions, &knownSession{visitor: v, account: int64(person.ID), state: "live"})
	return true
}

func (d *crashDrill) endSession(chance *rand.Rand) bool {
	d.mu.Lock()
	var s *knownSession
	if len(d.sessions) > 0 {
		s = d.sessions[chance.IntN(len(d.sessions))]
	}
	if s == nil || s.state != "live" {
		d.mu.Unlock()
		return false
	}
	s.state = ""
	d.mu.Unlock()
	status, _, err := s.visitor.do(context.Background(), d.node, http.MethodPost, "/logout", map[string]string{})
	if err != nil || status >= 400 {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s.state = "ended"
	d.ended++
	return true
}

func (d *crashDrill) register(n int) bool {
	value := fmt.Sprintf("203.0.%d.%d", n/250%250, n%250+1)
	status, body, err := d.node.call(http.MethodPost, "/v1/decisions", map[string]string{
		"scope": "address", "value": value, "action": "refuse", "ttl": "2h", "reason": "drill"})
	if err != nil || status >= 300 {
		return false
	}
	var got struct{ ID string }
	if err := json.Unmarshal(body, &got); err != nil || got.ID == "" {
		d.t.Errorf("registering answered %s", body)
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.decisions = append(d.decisions, &knownDecision{id: got.ID, value: value, state: "live"})
	return true
}

func (d *crashDrill) lift(chance *rand.Rand) bool {
	d.mu.Lock()
	var k *knownDecision
	if len(d.decisions) > 0 {
		k = d.decisions[chance.IntN(len(d.decisions))]
	}
	if k == nil || k.state != "live" {
		d.mu.Unlock()
		return false
	}
	k.state = ""
	d.mu.Unlock()
	status, _, err := d.node.call(http.MethodDelete, "/v1/decisions/"+k.id, nil)
	if err != nil || status >= 300 {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	k.state = "lifted"
	d.lifted++
	return true
}

// check looks at everything that was acknowledged.
func (d *crashDrill) check(point int) {
	d.t.Helper()
	ctx := context.Background()
	for i, s := range d.sessions {
		if i < len(d.sessions)-60 && i%7 != point%7 {
			continue // the latest, and a part of the older ones
		}
		status, err := s.visitor.me(ctx, d.node)
		switch {
		case err != nil:
			d.t.Errorf("point %d: session %d: %v", point, i, err)
		case s.state == "live" && status != http.StatusOK:
			d.t.Errorf("point %d: session %d of account %d is lost: %d", point, i, s.account, status)
		case s.state == "ended" && status == http.StatusOK:
			d.t.Errorf("point %d: session %d of account %d is back", point, i, s.account)
		}
	}
	for i, k := range d.decisions {
		if i < len(d.decisions)-60 && i%7 != point%7 {
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
		if k.state == "live" && !got.Lifted.IsZero() || k.state == "lifted" && got.Lifted.IsZero() {
			d.t.Errorf("point %d: decision %s was %s and is lifted %v", point, k.id, k.state, got.Lifted)
		}
	}
	// One decision a value: nothing was applied twice.
	seen := make(map[string]string)
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
			if other, twice := seen[one.Value]; twice {
				d.t.Errorf("point %d: %s has the decisions %s and %s", point, one.Value, other, one.ID)
			}
			seen[one.Value] = one.ID
		}
		if cursor = page.Next; cursor == "" {
			break
		}
	}
}

// tail is the end of a text.
func tail(text string, lines int) string {
	all := strings.Split(text, "\n")
	return strings.Join(all[max(len(all)-lines, 0):], "\n")
}
