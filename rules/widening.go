package rules

import (
	"encoding/binary"
	"net/netip"

	"github.com/kidoban/kidoban/detectors"
)

// rung is how wide a key sees the source of an event. A key with a source field that
// finds no room is counted under the next rung, where many such keys share one; its
// other fields stay as they are.
type rung int8

const (
	address  rung = iota
	network       // the /64 of an IPv6 address; of an IPv4 address the same as the address
	prefix        // the /24 of an IPv4 address, the /48 of an IPv6 address
	operator      // the autonomous system
	everyone      // all sources in one; also the rung of keys without a source field
)

// wider is the next rung that says something else of e; false after the last.
func (r rung) wider(e *detectors.Event) (rung, bool) {
	switch {
	case r == address && base(e).Is6():
		return network, true
	case r < prefix:
		return prefix, true
	case r == prefix && e.Source.ASN != 0:
		return operator, true
	}
	return everyone, r < everyone
}

// base is an address of e's source.
func base(e *detectors.Event) netip.Addr {
	if e.Source.Address.IsValid() {
		return e.Source.Address
	}
	return e.Source.Network.Addr()
}

// keyField is a field of events as keys have it.
type keyField struct {
	name string
	rung rung // of source fields; everyone for all others
}

func newKeyField(name string) keyField {
	switch name {
	case "source.address":
		return keyField{name, address}
	case "source.network":
		return keyField{name, network}
	case "source.asn":
		return keyField{name, operator}
	}
	return keyField{name, everyone}
}

const keyRoom = 128 // bytes; longer keys are made on the heap

// keyOf is e's key of a width. It is not ok where e lacks a field of it.
func (c *counter) keyOf(e *detectors.Event, width rung, b []byte) (key []byte, ok bool) {
	b = append(b, byte(width))
	for _, f := range c.by {
		if b, ok = f.append(b, e, width); !ok {
			return nil, false
		}
	}
	return b, true
}

// append adds what the field is in e to a key, so that keys of different fields are
// never the same. It is not ok where e lacks the field.
func (f keyField) append(b []byte, e *detectors.Event, width rung) (key []byte, ok bool) {
	if f.rung == everyone {
		return f.appendText(b, e)
	}
	if f.rung == operator && e.Source.ASN == 0 || f.rung == address && !e.Source.Address.IsValid() || f.rung == network && !e.Source.Network.IsValid() {
		return b, false
	}
	switch max(f.rung, width) {
	case address:
		return appendAddress(b, e.Source.Address), true
	case network:
		p := e.Source.Network
		if f.rung == address {
			p = detectors.CountingNetwork(e.Source.Address)
		}
		return append(appendAddress(b, p.Addr()), byte(p.Bits())), true
	case prefix:
		bits := 24
		if base(e).Is6() {
			bits = 48
		}
		p, err := base(e).Prefix(bits)
		return appendAddress(b, p.Addr()), err == nil
	case operator:
		return binary.BigEndian.AppendUint32(b, e.Source.ASN), true
	}
	return b, true
}

func appendAddress(b []byte, a netip.Addr) []byte {
	if a.Is4() {
		four := a.As4()
		return append(append(b, 4), four[:]...)
	}
	sixteen := a.As16()
	return append(append(b, 16), sixteen[:]...)
}

func (f keyField) appendText(b []byte, e *detectors.Event) (key []byte, ok bool) {
	if f.name == "name" {
		return append(b, e.Name.Digest[:]...), !e.Name.Digest.IsZero()
	}
	text := fieldText(f.name, e)
	b = binary.BigEndian.AppendUint32(b, uint32(len(text)))
	return append(b, text...), text != ""
}
