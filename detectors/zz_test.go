package detectors
import ("testing";"time";"slices";"fmt";"net/netip";"encoding/binary")
func TestZZ(t *testing.T) {
	s := Default(time.Time{})
	for i := range 4_000_000 {
		e := Event{Time: time.Unix(1e9, 0), Kind: Login, Outcome: Failure}
		e.Source.Address = netip.AddrFrom4([4]byte{10, byte(i%1000000>>16), byte(i%1000000>>8), byte(i%1000000)})
		e.Source.Network = CountingNetwork(e.Source.Address)
		binary.BigEndian.PutUint64(e.Name.Digest[:], uint64(i+1))
		s.Observe(e)
	}
	f, _ := s.Freeze()
	for _, d := range f.parts { for _, tb := range d.tables() {
		var all []time.Duration
		for { b := time.Now(); x := tb.next(); all = append(all, time.Since(b)); if x == nil {break} }
		slices.Sort(all)
		fmt.Println(len(all), "p50", all[len(all)/2], "p99", all[len(all)*99/100], "max", all[len(all)-1])
	}}
}
