package geo_test

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"

	"github.com/kidoban/kidoban/gateway/geo"
)

// write makes a database of kind with one network.
func write(t *testing.T, kind, network string, record mmdbtype.Map) string {
	t.Helper()
	tree, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: kind, RecordSize: 24, IncludeReservedNetworks: true})
	if err != nil {
		t.Fatal(err)
	}
	_, n, err := net.ParseCIDR(network)
	if err != nil {
		t.Fatal(err)
	}
	if err := tree.Insert(n, record); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), kind+".mmdb")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tree.WriteTo(f); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestLocate(t *testing.T) {
	asn := write(t, "GeoLite2-ASN", "203.0.113.0/24", mmdbtype.Map{
		"autonomous_system_number":       mmdbtype.Uint32(64500),
		"autonomous_system_organization": mmdbtype.String("Example"),
	})
	country := write(t, "GeoLite2-Country", "203.0.113.0/24", mmdbtype.Map{
		"country": mmdbtype.Map{"iso_code": mmdbtype.String("JP")},
	})
	places, err := geo.Open([]string{asn, country})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		address string
		asn     uint32
		country string
	}{
		{"203.0.113.7", 64500, "JP"},
		{"198.51.100.1", 0, ""},
		{"2001:db8::1", 0, ""},
	} {
		gotASN, gotCountry := places.Locate(netip.MustParseAddr(test.address))
		if gotASN != test.asn || gotCountry != test.country {
			t.Errorf("Locate(%s) = %d, %q, want %d, %q", test.address, gotASN, gotCountry, test.asn, test.country)
		}
	}
	if gotASN, gotCountry := places.Locate(netip.Addr{}); gotASN != 0 || gotCountry != "" {
		t.Errorf("Locate(zero) = %d, %q, want unknown", gotASN, gotCountry)
	}
}

func TestOpenTellsEveryFault(t *testing.T) {
	torn := filepath.Join(t.TempDir(), "torn.mmdb")
	if err := os.WriteFile(torn, []byte("not a database"), 0o600); err != nil {
		t.Fatal(err)
	}
	foreign := write(t, "GeoIP2-Domain", "203.0.113.0/24", mmdbtype.Map{"domain": mmdbtype.String("example")})
	_, err := geo.Open([]string{torn, foreign, filepath.Join(t.TempDir(), "missing.mmdb")})
	if err == nil {
		t.Fatal("Open gave no error")
	}
	for _, want := range []string{"torn.mmdb", "GeoIP2-Domain", "missing.mmdb"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not mention %s", err, want)
		}
	}
}
