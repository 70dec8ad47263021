package geo_test

import (
	"bytes"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"

	"github.com/kidoban/kidoban/gateway/geo"
)

var (
	here    = netip.MustParseAddr("203.0.113.7")
	october = time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC)
)

// database is a file of kind that was published at built and knows one network.
func database(t testing.TB, kind string, built time.Time, record mmdbtype.Map) []byte {
	t.Helper()
	tree, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: kind, BuildEpoch: built.Unix(), RecordSize: 24, IncludeReservedNetworks: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := tree.Insert(&net.IPNet{IP: net.IPv4(203, 0, 113, 0).To4(), Mask: net.CIDRMask(24, 32)}, record); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := tree.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func asn(n uint32) mmdbtype.Map {
	return mmdbtype.Map{"autonomous_system_number": mmdbtype.Uint32(n)}
}

func country(code string) mmdbtype.Map {
	return mmdbtype.Map{"country": mmdbtype.Map{"iso_code": mmdbtype.String(code)}}
}

// put writes a file beside its place and renames it, as publishers' programs do.
func put(t testing.TB, file string, data []byte) {
	t.Helper()
	if err := os.WriteFile(file+".new", data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

func wantASN(t *testing.T, l *geo.Live, want uint32) {
	t.Helper()
	if got, _ := l.Locate(here); got != want {
		t.Errorf("%v is in AS%d, want %d", here, got, want)
	}
}

// look looks often enough for a change to count.
func look(l *geo.Live) (swapped []string, faults []error) {
	for range 2 {
		s, f := l.Look()
		swapped, faults = append(swapped, s...), append(faults, f...)
	}
	return swapped, faults
}

func TestLiveSwaps(t *testing.T) {
	file := filepath.Join(t.TempDir(), "asn.mmdb")
	good := database(t, "GeoLite2-ASN", october, asn(64500))
	put(t, file, good)
	var l geo.Live
	wantASN(t, &l, 0)
	if err := l.Use([]string{file}); err != nil {
		t.Fatal(err)
	}
	wantASN(t, &l, 64500)
	if swapped, faults := look(&l); len(swapped)+len(faults) > 0 {
		t.Errorf("nothing changed: got %v, %v", swapped, faults)
	}

	newer := database(t, "GeoLite2-ASN", october.AddDate(0, 1, 0), asn(64501))
	put(t, file, newer)
	if swapped, _ := l.Look(); len(swapped) > 0 {
		t.Errorf("got %v at the first look: the file may be half written", swapped)
	}
	if swapped, faults := l.Look(); len(swapped) != 1 || swapped[0] != "asn.mmdb of 2026-11-01" || len(faults) > 0 {
		t.Errorf("got %v, %v", swapped, faults)
	}
	wantASN(t, &l, 64501)
	if s := l.Status(); len(s) != 1 || s[0].Kind != geo.ASN || !s[0].Built.Equal(october.AddDate(0, 1, 0)) || s[0].Fault != nil || s[0].Path != file {
		t.Errorf("status is %+v", s)
	}

	for name, bad := range map[string][]byte{
		"cut short":           good[:len(good)/2],
		"empty":               {},
		"of another kind":     database(t, "GeoIP2-Domain", october, mmdbtype.Map{"domain": mmdbtype.String("example")}),
		"of another database": database(t, "GeoLite2-Country", october, country("JP")),
		"no database":         []byte("<html>log in first</html>"),
	} {
		put(t, file, bad)
		swapped, faults := look(&l)
		if len(swapped) > 0 || len(faults) != 1 || !strings.Contains(faults[0].Error(), "asn.mmdb") || !strings.Contains(faults[0].Error(), "2026-11-01 stays in force") {
			t.Errorf("%s: got %v, %v", name, swapped, faults)
		}
		wantASN(t, &l, 64501)
		if s := l.Status(); s[0].Fault == nil || s[0].Kind != geo.ASN {
			t.Errorf("%s: status is %+v, want a fault and what was before", name, s)
		}
		if _, faults := look(&l); len(faults) > 0 {
			t.Errorf("%s: told again: %v", name, faults)
		}
		put(t, file, newer)
		look(&l)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if _, faults := look(&l); len(faults) != 1 {
		t.Errorf("deleted: got %v", faults)
	}
	if err := l.Use([]string{file}); err == nil { // a reload meanwhile
		t.Error("a missing file is no fault")
	}
	wantASN(t, &l, 64501)
	put(t, file, good)
	if swapped, faults := look(&l); len(swapped) != 1 || len(faults) > 0 {
		t.Errorf("back: got %v, %v", swapped, faults)
	}
	wantASN(t, &l, 64500)
	if err := l.Use(nil); err != nil {
		t.Fatal(err)
	}
	wantASN(t, &l, 0)
}

// A file that is bad from the start is unknown, told, and taken once it is good;
// the others are in force.
func TestLiveStartsWithBadFiles(t *testing.T) {
	dir := t.TempDir()
	bad, fine := filepath.Join(dir, "bad.mmdb"), filepath.Join(dir, "fine.mmdb")
	good := database(t, "GeoLite2-ASN", october, asn(64500))
	put(t, bad, good[:len(good)-20])
	put(t, fine, database(t, "GeoLite2-Country", october, country("JP")))
	var l geo.Live
	if err := l.Use([]string{bad, fine, fine}); err == nil || !strings.Contains(err.Error(), "bad.mmdb") {
		t.Errorf("error is %v", err)
	}
	if n, c := l.Locate(here); n != 0 || c != "JP" {
		t.Errorf("got AS%d, %q", n, c)
	}
	if s := l.Status(); len(s) != 2 || s[0].Kind != "" || s[0].Fault == nil || s[1].Kind != geo.Country {
		t.Errorf("status is %+v", s)
	}
	put(t, bad, good)
	look(&l)
	wantASN(t, &l, 64500)
}

// Each lookup sees one file, the old or the new, while files are swapped under it.
func TestLiveSwapsUnderLookups(t *testing.T) {
	file := filepath.Join(t.TempDir(), "asn.mmdb")
	versions := [][]byte{database(t, "GeoLite2-ASN", october, asn(64500)), database(t, "GeoLite2-ASN", october, asn(64501))}
	put(t, file, versions[0])
	var l geo.Live
	if err := l.Use([]string{file}); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if n, _ := l.Locate(here); n != 64500 && n != 64501 {
					t.Errorf("got AS%d", n)
					return
				}
				l.Status()
			}
		})
	}
	for i := range 50 {
		put(t, file, versions[(i+1)%2])
		if swapped, faults := look(&l); len(swapped) != 1 || len(faults) > 0 {
			t.Errorf("swap %d: got %v, %v", i, swapped, faults)
			break
		}
	}
	close(done)
	readers.Wait()
}

// Whatever bytes a file has, reading it and looking addresses up ends, and what comes
// out is an answer or "unknown".
func FuzzDatabase(f *testing.F) {
	for _, data := range [][]byte{
		database(f, "GeoLite2-ASN", october, asn(64500)), database(f, "GeoLite2-Country", october, country("JP")),
		database(f, "GeoIP2-Domain", october, mmdbtype.Map{"domain": mmdbtype.String("example")}),
	} {
		f.Add(data, uint32(0xcb007107))
		f.Add(data[:len(data)/2], uint32(0))
	}
	f.Fuzz(func(t *testing.T, data []byte, address uint32) {
		p, err := geo.Parse(data)
		a := netip.AddrFrom4([4]byte{byte(address >> 24), byte(address >> 16), byte(address >> 8), byte(address)})
		for _, a := range []netip.Addr{a, here, netip.AddrFrom16(a.As16()), netip.MustParseAddr("2001:db8::1")} {
			n, c := p.Locate(a)
			if err != nil && (n != 0 || c != "") || len(c) != 0 && len(c) != 2 {
				t.Errorf("%v: got AS%d, %q of a file with %v", a, n, c, err)
			}
		}
	})
}
