package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/kidoban/kidoban/gateway/api"
	"github.com/kidoban/kidoban/gateway/storage"
	"github.com/kidoban/kidoban/gateway/stream"
)

const (
	// remembering is how often what the detectors know is written down.
	remembering = 5 * time.Minute
	// spareMost is what a snapshot leaves free at most; less on a small disk.
	spareMost = 256 << 20
	// rekeying is how often the keyring's file is looked at.
	rekeying = 10 * time.Second
)

// memory is the file in which the detectors' state is kept.
type memory struct {
	file string

	mu   sync.Mutex // guards all below
	err  error      // of the last writing
	at   time.Time  // of the last one that went well
	keys error      // why the keyring's file cannot be read
}

// tend does what is due from time to time, until ctx ends.
func (rt *runtime) tend(ctx context.Context) {
	remember, rekey := time.NewTicker(remembering), time.NewTicker(rekeying)
	defer remember.Stop()
	defer rekey.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-remember.C:
			rt.remember()
		case <-rekey.C:
			err := rt.keys.Reload()
			rt.memory.mu.Lock()
			if err != nil && rt.memory.keys == nil {
				slog.New(rt.log).Error("the keyring changed and cannot be read: the keys known before stay in use", "error", err)
			}
			rt.memory.keys = err
			rt.memory.mu.Unlock()
		}
	}
}

// remember writes down what the detectors know, where there is room for it.
func (rt *runtime) remember() {
	began := time.Now()
	var last int64 // bytes
	if info, err := os.Stat(rt.memory.file); err == nil {
		last = info.Size()
	}
	room, err := storage.Capacity(filepath.Dir(rt.memory.file))
	if need := 2*last + min(room.Total/16, spareMost); err == nil && room.Free < need {
		err = fmt.Errorf("%d MiB of the disk are free, want %d: a snapshot must not take the last room", room.Free>>20, need>>20)
	}
	if err == nil {
		err = rt.core.Remember(rt.memory.file)
	}
	log := slog.New(rt.log)
	rt.memory.mu.Lock()
	defer rt.memory.mu.Unlock()
	before := rt.memory.err
	if rt.memory.err = err; err != nil {
		if before != nil {
			return // it was told; health has the latest
		}
		log.Warn("what the detectors know cannot be written down; after a restart they know it from the journal of events, as far as that goes", "error", err)
		return
	}
	rt.memory.at = began
	log.Debug("what the detectors know is written down", "took", time.Since(began))
}

// parts tells operators how the parts of the gate are.
func (rt *runtime) parts(ctx context.Context) []api.PartHealth {
	database := api.PartHealth{Name: "database", Status: api.OK, Essential: true}
	if err := rt.db.Reads().PingContext(ctx); err != nil {
		database.Status, database.Detail = api.Down, "it does not answer; the log has the cause"
	} else if rt.core.Behind() {
		database.Status, database.Detail = api.Degraded, "what other nodes changed cannot be taken over; the log has the cause"
	}
	hooks := api.PartHealth{Name: "outbox", Status: api.OK}
	for _, f := range rt.hooks.Status().Failing {
		hooks.Status, hooks.Detail = api.Degraded, "webhook "+f.To+" does not take notices: "+f.Why
	}
	keys := api.PartHealth{Name: "keys", Status: api.OK}
	memory := api.PartHealth{Name: "detectors", Status: api.OK}
	rt.memory.mu.Lock()
	if rt.memory.keys != nil {
		keys.Status, keys.Detail = api.Degraded, "keys.json changed and cannot be read: the keys known before stay in use; the log has the cause"
	}
	if rt.memory.err != nil {
		memory.Status, memory.Detail = api.Degraded, "what they know cannot be written down: "+rt.memory.err.Error()
	}
	rt.memory.mu.Unlock()
	return append(append([]api.PartHealth{database}, rt.recordHealth()...), append(rt.streamHealth(), hooks, keys, memory)...)
}

func (rt *runtime) recordHealth() []api.PartHealth {
	s := rt.record.Status()
	paper := api.PartHealth{Name: "record", Status: api.OK}
	switch {
	case !s.Since.IsZero():
		paper.Status = api.Down
		paper.Detail = fmt.Sprintf("nothing can be written since %s: %s", s.Since.UTC().Format(time.RFC3339), s.Why)
		if rt.core.RecordOptional.Load() {
			paper.Detail += "; log-ins and operators' acts go on without it (record_optional)"
		} else {
			paper.Detail += "; log-ins and operators' acts are refused until it can"
		}
	case s.Full || s.ReserveOut:
		paper.Status, paper.Detail = api.Degraded, fmt.Sprintf("the disk is full and the reserve for log-ins and acts is in use: %d MiB are free; make room", s.Free>>20)
	}
	if s.Mirror == nil {
		return []api.PartHealth{paper}
	}
	mirror := api.PartHealth{Name: "mirror", Status: api.OK, LagSeconds: new(s.Mirror.Age.Seconds())}
	if !s.Mirror.Since.IsZero() {
		mirror.Status = api.Degraded
		mirror.Detail = fmt.Sprintf("%d entries of the record are on this node alone: %s", s.Mirror.Entries, s.Mirror.Why)
	}
	return []api.PartHealth{paper, mirror}
}

func (rt *runtime) streamHealth() []api.PartHealth {
	s := rt.stream.Status()
	events := api.PartHealth{Name: "stream", Status: api.OK, Nodes: s.Nodes}
	switch {
	case s.Degraded:
		events.Status = api.Degraded
		events.Detail = fmt.Sprintf("this node is alone with its events since %s: %s; %d wait to be sent", s.DegradedSince.UTC().Format(time.RFC3339), s.Reason, s.Spooled)
	case s.Conflict:
		events.Status, events.Detail = api.Degraded, "another process uses the name of this node: give each node a name of its own (option node)"
	case s.Journal.Error != "":
		events.Status, events.Detail = api.Degraded, "events are kept in memory only: "+s.Journal.Error
	case s.GapsOpen > 0:
		events.Detail = fmt.Sprintf("%d events of other nodes are being fetched", s.GapsOpen)
	}
	if rt.limits == nil {
		return []api.PartHealth{events}
	}
	events.LagSeconds = new(behind(s).Seconds())
	counting := api.PartHealth{Name: "limits", Status: api.OK}
	if st := rt.limits.Status(); st.Open {
		counting.Status = api.Degraded
		counting.Detail = fmt.Sprintf("Redis is not asked since %s; this node lets through its share of each limit", st.Since.UTC().Format(time.RFC3339))
	}
	return []api.PartHealth{events, counting}
}

// behind is how far this node is behind with the events of the others.
func behind(s stream.Status) (lag time.Duration) {
	for _, p := range s.Peers {
		if p.Alive {
			lag = max(lag, p.Lag)
		}
	}
	return lag
}
