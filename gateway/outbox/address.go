package outbox

import (
	"fmt"
	"net/netip"
)

// notPublic are networks of IPv4 that no webhook may reach: those of the IANA
// special-purpose registry (RFC 6890 and its updates), multicast and what is
// reserved. 169.254.0.0/16 has the metadata services of clouds.
var notPublic = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),       // this network, RFC 791
	netip.MustParsePrefix("10.0.0.0/8"),      // private, RFC 1918
	netip.MustParsePrefix("100.64.0.0/10"),   // behind carriers' NAT, RFC 6598
	netip.MustParsePrefix("127.0.0.0/8"),     // loopback, RFC 1122
	netip.MustParsePrefix("169.254.0.0/16"),  // link-local, RFC 3927
	netip.MustParsePrefix("172.16.0.0/12"),   // private, RFC 1918
	netip.MustParsePrefix("192.0.0.0/24"),    // protocol assignments, RFC 6890
	netip.MustParsePrefix("192.0.2.0/24"),    // documentation, RFC 5737
	netip.MustParsePrefix("192.88.99.0/24"),  // relays of 6to4, RFC 7526
	netip.MustParsePrefix("192.168.0.0/16"),  // private, RFC 1918
	netip.MustParsePrefix("198.18.0.0/15"),   // benchmarking, RFC 2544
	netip.MustParsePrefix("198.51.100.0/24"), // documentation, RFC 5737
	netip.MustParsePrefix("203.0.113.0/24"),  // documentation, RFC 5737
	netip.MustParsePrefix("224.0.0.0/4"),     // multicast, RFC 5771
	netip.MustParsePrefix("240.0.0.0/4"),     // reserved, RFC 1112, and broadcast
}

// Of IPv6 only global unicast is public, without these.
var (
	globalUnicast = netip.MustParsePrefix("2000::/3")
	notPublic6    = []netip.Prefix{
		netip.MustParsePrefix("2001::/23"),     // protocol assignments, with Teredo and benchmarking, RFC 2928
		netip.MustParsePrefix("2001:db8::/32"), // documentation, RFC 3849
		netip.MustParsePrefix("3fff::/20"),     // documentation, RFC 9637
	}
	nat64     = netip.MustParsePrefix("64:ff9b::/96") // RFC 6052; its last 4 bytes are an IPv4 address
	sixToFour = netip.MustParsePrefix("2002::/16")    // 6to4, RFC 3056; bytes 2 to 5 are one
)

// refusal says why a webhook may not connect to a, or nil. What stands in allow may
// always be reached; of an address that carries one of IPv4, that one counts.
func refusal(a netip.Addr, allow []netip.Prefix) error {
	outer := a.Unmap().WithZone("")
	a = carried(outer)
	for _, p := range allow {
		if p.Contains(a) || p.Contains(outer) {
			return nil
		}
	}
	if a.Is4() {
		for _, p := range notPublic {
			if p.Contains(a) {
				return fmt.Errorf("%w: %s is in %s: `allow` the network if it is meant", errRefused, a, p)
			}
		}
		return nil
	}
	if !globalUnicast.Contains(a) {
		return fmt.Errorf("%w: %s is not a public address: `allow` its network if it is meant", errRefused, a)
	}
	for _, p := range notPublic6 {
		if p.Contains(a) {
			return fmt.Errorf("%w: %s is in %s: `allow` the network if it is meant", errRefused, a, p)
		}
	}
	return nil
}

// carried is the IPv4 address that a translates or tunnels to, or else a.
func carried(a netip.Addr) netip.Addr {
	b := a.As16()
	switch {
	case nat64.Contains(a):
		return netip.AddrFrom4([4]byte(b[12:16]))
	case sixToFour.Contains(a):
		return netip.AddrFrom4([4]byte(b[2:6]))
	}
	return a
}
