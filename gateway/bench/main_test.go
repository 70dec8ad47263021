//go:build linux

package bench

import (
	"flag"
	"fmt"
	"os"
	"testing"
)

var profileDir = flag.String("profile", "", "after the rounds, write CPU and allocation profiles of each proxy to this `directory`; "+
	"opens Caddy's admin endpoint on loopback in every row, bare ones included")

// asBackend is set in the environment of the process that is the backend: this
// test binary, started again.
const asBackend = "KIDOBAN_BENCH_BACKEND"

func TestMain(m *testing.M) {
	if os.Getenv(asBackend) != "" {
		if err := serveBackend(); err != nil {
			fmt.Fprintln(os.Stderr, "backend:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}
