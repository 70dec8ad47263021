package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/kidoban/kidoban/gateway/storage"
)

const (
	// remembering is how often what the detectors know is written down.
	remembering = 5 * time.Minute
	// spareMost is what a snapshot leaves free at most; less on a small disk.
	spareMost = 256 << 20
	// rekeying is how often the keyring's file is looked at.
	rekeying = 10 * time.Second
)

// relocating is how often the geo files are looked at.
var relocating = 5 * time.Second

// upkeep is what is done from time to time, and how it went.
type upkeep struct {
	snapshot string // the file in which the detectors' state is kept

	mu        sync.Mutex // guards all below
	unwritten error      // why the last snapshot could not be written
	written   time.Time  // the last one that could
	unread    error      // why the keyring's file cannot be read
}

// tend does what is due from time to time, until ctx ends.
func (rt *runtime) tend(ctx context.Context) {
	remember, rekey, probe := time.NewTicker(remembering), time.NewTicker(rekeying), time.NewTicker(time.Second)
	relocate := time.NewTicker(relocating)
	defer remember.Stop()
	defer rekey.Stop()
	defer relocate.Stop()
	defer probe.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-probe.C:
			if rt.limits != nil {
				rt.limits.Probe(ctx)
			}
		case <-remember.C:
			rt.remember()
		case <-relocate.C:
			rt.relocate()
		case <-rekey.C:
			err := rt.keys.Reload()
			rt.upkeep.mu.Lock()
			if err != nil && rt.upkeep.unread == nil {
				slog.New(rt.log).Error("the keyring changed and cannot be read: the keys known before stay in use", "error", err)
			}
			rt.upkeep.unread = err
			rt.upkeep.mu.Unlock()
		}
	}
}

// relocate takes over geo files that were replaced.
func (rt *runtime) relocate() {
	swapped, faults := rt.places.Look()
	log := slog.New(rt.log)
	for _, what := range swapped {
		log.Info("a geoip file was replaced, and is in force", "file", what)
	}
	for _, fault := range faults {
		log.Error("a geoip file was replaced, and is not in force", "error", fault)
	}
}

// remember writes down what the detectors know, where there is room for it.
func (rt *runtime) remember() {
	began := time.Now()
	var last int64 // bytes
	if info, err := os.Stat(rt.upkeep.snapshot); err == nil {
		last = info.Size()
	}
	room, err := storage.Capacity(filepath.Dir(rt.upkeep.snapshot))
	if need := 2*last + min(room.Total/16, spareMost); err == nil && room.Free < need {
		err = fmt.Errorf("%d MiB of the disk are free, want %d: a snapshot must not take the last room", room.Free>>20, need>>20)
	}
	if err == nil {
		err = rt.core.Remember(rt.upkeep.snapshot)
	}
	log := slog.New(rt.log)
	rt.upkeep.mu.Lock()
	defer rt.upkeep.mu.Unlock()
	before := rt.upkeep.unwritten
	if rt.upkeep.unwritten = err; err != nil {
		if before != nil {
			return // it was told; health has the latest
		}
		log.Warn("what the detectors know cannot be written down; after a restart they know it from the journal of events, as far as that goes", "error", err)
		return
	}
	rt.upkeep.written = began
	log.Debug("what the detectors know is written down", "took", time.Since(began))
}
