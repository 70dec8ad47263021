package gateway_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"

	"github.com/kidoban/kidoban/gateway"
)

// asnFile replaces a file by a database in which this machine is in an autonomous
// system, published so long ago.
func asnFile(t *testing.T, file string, number uint32, ago time.Duration) {
	t.Helper()
	tree, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: "GeoLite2-ASN", BuildEpoch: time.Now().Add(-ago).Unix(), IncludeReservedNetworks: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := tree.Insert(&net.IPNet{IP: net.IPv4(127, 0, 0, 0).To4(), Mask: net.CIDRMask(8, 32)}, mmdbtype.Map{"autonomous_system_number": mmdbtype.Uint32(number)}); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := tree.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	replaceFile(t, file, b.Bytes())
}

func replaceFile(t *testing.T, file string, data []byte) {
	t.Helper()
	if err := os.WriteFile(file+".new", data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

// geoHealth is what health says of geo files, and all its faults.
func (g *gate) geoHealth() (status, detail string, lag float64, faults []string) {
	g.t.Helper()
	var health struct {
		Parts []struct {
			Name, Status, Detail string
			Lag                  float64 `json:"lag_seconds"`
		}
		Faults []string
	}
	g.operator("GET", "/v1/health", nil, &health)
	for _, p := range health.Parts {
		if p.Name == "geo" {
			return p.Status, p.Detail, p.Lag, health.Faults
		}
	}
	return "", "", 0, health.Faults
}

// Geo files are taken over while the gate runs; one that is bad changes nothing but
// health and metrics.
func TestGeoFilesAreReplaced(t *testing.T) {
	const day = 24 * time.Hour
	t.Cleanup(gateway.LookOften())
	file := filepath.Join(t.TempDir(), "asn.mmdb")
	asnFile(t, file, 64500, 100*day)
	port := freePorts(t, 1)[0]
	g := newGateBeside(t, newBackend(t), fmt.Sprintf("http://127.0.0.1:%d {\n\tbind 127.0.0.1\n\tmetrics\n}\n", port), "geoip "+file)
	status, detail, lag, faults := g.geoHealth()
	if status != "degraded" || !strings.Contains(detail, "asn.mmdb is 100 days old") || lag < (100*day).Seconds() || len(faults) > 0 {
		t.Errorf("of an old file health says %s: %q, %.0f s, %v", status, detail, lag, faults)
	}
	if text := metricsAt(t, port); !strings.Contains(text, `kidoban_geo_age_seconds{kind="asn"} 8.64`) || !strings.Contains(text, `kidoban_part_degraded{part="geo"} 1`) {
		t.Errorf("metrics do not tell of an old file:\n%s", text)
	}
	asnFile(t, file, 64501, day)
	waitUntil(t, func() bool { status, _, _, _ := g.geoHealth(); return status == "ok" })
	if _, detail, lag, _ := g.geoHealth(); !strings.HasPrefix(detail, "asn.mmdb is of ") || lag < day.Seconds() || lag > 2*day.Seconds() {
		t.Errorf("of a new file health says %q, %.0f s", detail, lag)
	}
	replaceFile(t, file, []byte("<html>log in first</html>"))
	waitUntil(t, func() bool { status, _, _, _ := g.geoHealth(); return status == "degraded" })
	if _, detail, _, faults := g.geoHealth(); !strings.Contains(detail, "stays in force") || len(faults) != 1 {
		t.Errorf("of a bad file health says %q, %v", detail, faults)
	}
	c := g.direct(t, "127.0.3.9")
	c.login("hanako@example.com", "no password of hers")
	if e := g.awaitEvents("127.0.3.9", 1)[0]; e.Source.ASN != 64501 {
		t.Errorf("came from AS%d, want 64501 as the last good file says", e.Source.ASN)
	}
}

func metricsAt(t *testing.T, port int) string {
	t.Helper()
	res, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/metrics", port))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
