package feed

import (
	"time"

	"github.com/kidoban/kidoban/detectors"
)

const maxKnown = 1 << 17 // accounts, names and devices each in the newer half of the memory

// Directory remembers what a gate that saw the attempts of a log would know: of which
// account a name is, since when an account is known, and on which devices it completed
// a login. What the log itself tells is left as it is. The zero value knows nothing.
//
// It keeps the 131,072 accounts, names and devices that were seen last, each, and up to
// as many besides.
type Directory struct {
	names   memory[detectors.Digest, detectors.Account]
	since   memory[detectors.Account, time.Time]
	devices memory[onDevice, time.Time]
	owned   memory[string, struct{}] // devices that some account completed a login on
}

type onDevice struct {
	id      string
	account detectors.Account
}

// Fill completes e with what is known before its outcome is.
func (d *Directory) Fill(e *detectors.Event) {
	if e.Account == "" && e.Existence != detectors.Missing && !e.Name.Digest.IsZero() {
		e.Account, _ = d.names.find(e.Name.Digest)
	}
	if e.Account != "" && e.AccountSince.IsZero() {
		e.AccountSince, _ = d.since.find(e.Account)
	}
	if e.Device.ID == "" || e.Device.State != detectors.NoDevice {
		return
	}
	first, known := d.devices.find(onDevice{e.Device.ID, e.Account})
	_, owned := d.owned.find(e.Device.ID)
	switch {
	case known && e.Account != "" && e.Time.Sub(first) >= 24*time.Hour:
		e.Device.State = detectors.Trusted
	case known && e.Account != "":
		e.Device.State = detectors.Probation
	case owned:
		e.Device.State = detectors.Stranger
	}
}

// Identify completes e, whose password was right, as the backend would. Where the log
// names no account, the name stands for it.
func (d *Directory) Identify(e *detectors.Event) {
	if e.Account == "" && !e.Name.Digest.IsZero() {
		e.Account = detectors.Account("name:" + e.Name.Digest.String())
	}
	if e.Account != "" && e.AccountSince.IsZero() {
		since, known := d.since.find(e.Account)
		if e.AccountSince = since; !known {
			e.AccountSince = e.Time
		}
	}
}

// Complete learns the login e, of which nothing is withheld.
func (d *Directory) Complete(e *detectors.Event) {
	if e.Account == "" {
		return
	}
	if !e.Name.Digest.IsZero() {
		d.names.keep(e.Name.Digest, e.Account)
	}
	if _, known := d.since.find(e.Account); !known {
		d.since.keep(e.Account, e.AccountSince)
	}
	if e.Device.ID == "" {
		return
	}
	on := onDevice{e.Device.ID, e.Account}
	if _, known := d.devices.find(on); !known {
		d.devices.keep(on, e.Time)
	}
	d.owned.keep(e.Device.ID, struct{}{})
}

// memory forgets the older half when the newer is full. What is found stays.
type memory[K comparable, V any] struct{ newer, older map[K]V }

func (m *memory[K, V]) find(k K) (V, bool) {
	v, ok := m.newer[k]
	if !ok {
		if v, ok = m.older[k]; ok {
			m.keep(k, v)
		}
	}
	return v, ok
}

func (m *memory[K, V]) keep(k K, v V) {
	if _, there := m.newer[k]; !there && (m.newer == nil || len(m.newer) >= maxKnown) {
		m.newer, m.older = map[K]V{}, m.newer
	}
	m.newer[k] = v
}
