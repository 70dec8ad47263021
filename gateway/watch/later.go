package watch

import (
	"maps"
	"slices"
)

// Later is a [Keeper] whose changes wait: files come into force first, and are kept
// then, all at a time. It is for one goroutine.
type Later struct {
	keeper *Keeper
	good   map[string][]byte
	gone   map[string]bool
}

// Later begins changes of k.
func (k *Keeper) Later() *Later {
	return &Later{keeper: k, good: map[string][]byte{}, gone: map[string]bool{}}
}

// Good has Keep keep data as the last good version of name. Data must not change until
// then. It returns nil.
func (l *Later) Good(name string, data []byte) error {
	delete(l.gone, name)
	l.good[name] = data
	return nil
}

// Forget has Keep drop the version of name. It returns nil.
func (l *Later) Forget(name string) error {
	delete(l.good, name)
	l.gone[name] = true
	return nil
}

// LastGood is the version of name that is kept already, as [Keeper.LastGood] has it.
func (l *Later) LastGood(name string) (data []byte, hash string, ok bool) {
	return l.keeper.LastGood(name)
}

// Names lists the files of which a version is kept already, sorted.
func (l *Later) Names() []string { return l.keeper.Names() }

// Keep makes the changes. They are durable when it returns; a version that cannot be
// kept is told, and the others are.
func (l *Later) Keep() error {
	good, gone := l.good, slices.Sorted(maps.Keys(l.gone))
	l.good, l.gone = map[string][]byte{}, map[string]bool{}
	return l.keeper.change(good, gone)
}
