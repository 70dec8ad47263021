package guard

import (
	"net/netip"
	"strings"

	"github.com/kidoban/kidoban/detectors"
)

// nat64 is the well-known prefix of RFC 6052 section 2.1: an IPv6-only client
// reaches an IPv4 service through it, and its IPv4 address is the last 32 bits.
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// ParseAddress reads a client address as a server reports it and returns the
// address that counts: IPv4 inside IPv6 (mapped, RFC 4291 section 2.5.5.2) and
// NAT64 unwrapped, zones dropped. The zero Addr means "not known".
func ParseAddress(text string) netip.Addr {
	a, err := netip.ParseAddr(strings.Trim(text, "[]"))
	if err != nil {
		return netip.Addr{}
	}
	a = a.WithZone("").Unmap()
	if nat64.Contains(a) {
		b := a.As16()
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return a
}

// Locator tells where addresses are. Zero values mean "unknown".
type Locator interface {
	Locate(netip.Addr) (asn uint32, country string)
}

func (c *Core) source(peer Peer) detectors.Source {
	a := ParseAddress(peer.Address)
	s := detectors.Source{Address: a, Port: peer.Port}
	if !a.IsValid() {
		return s
	}
	s.Network = detectors.CountingNetwork(a)
	if c.Locator != nil {
		s.ASN, s.Country = c.Locator.Locate(a)
	}
	return s
}
