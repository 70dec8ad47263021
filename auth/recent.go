package auth

import "sync"

// recent remembers up to 2*max values by key, the latest ones: when max new ones
// have come, those that were not asked for since the last such turn are dropped.
// It is for answers of a store, so it knows the hole that such caches have: an
// answer read before a change and kept after it. Read now before asking the
// store, and keep the answer with putAt.
type recent[K comparable, V any] struct {
	max int

	mu       sync.Mutex // guards what follows
	epoch    uint64     // changes so far
	new, old map[K]V
}

func newRecent[K comparable, V any](size int) *recent[K, V] {
	return &recent[K, V]{max: max(size, 1), new: make(map[K]V)}
}

func (r *recent[K, V]) get(k K) (V, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	v, ok := r.new[k]
	if !ok {
		if v, ok = r.old[k]; ok {
			r.putLocked(k, v)
		}
	}
	return v, ok
}

// now is the number of changes so far.
func (r *recent[K, V]) now() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.epoch
}

// putAt keeps v unless there was a change after epoch.
func (r *recent[K, V]) putAt(epoch uint64, k K, v V) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.epoch == epoch {
		r.putLocked(k, v)
	}
}

// drop is a change of what is known about k.
func (r *recent[K, V]) drop(k K) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.epoch++
	delete(r.new, k)
	delete(r.old, k)
}

// first keeps v unless there is something under k, and reports whether it did.
func (r *recent[K, V]) first(k K, v V) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, new := r.new[k]
	_, old := r.old[k]
	if new || old {
		return false
	}
	r.putLocked(k, v)
	return true
}

// clear is a change of everything.
func (r *recent[K, V]) clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.epoch++
	r.new, r.old = make(map[K]V), nil
}

func (r *recent[K, V]) putLocked(k K, v V) {
	if len(r.new) >= r.max {
		r.old, r.new = r.new, make(map[K]V)
	}
	r.new[k] = v
}
