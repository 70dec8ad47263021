//go:build linux

package bench

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/kidoban/kidoban/gateway/storage"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

// refused is a local address that the last of the seeded decisions refuses; the
// load comes from another one.
const refused = "127.0.0.2"

// seed makes n decisions about other people live in a data directory whose
// gateway is not running.
func seed(ctx context.Context, dir string, n int, now time.Time) error {
	db, err := storage.Open(ctx, storage.Options{DataDir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer db.Close()
	// A database without its keys is refused by the gateway.
	if _, err := storage.OpenKeyring(filepath.Join(dir, "keys.json"), true); err != nil {
		return err
	}
	store, err := policies.NewSQLStore(db.SQL(), db.Dialect())
	if err != nil {
		return err
	}
	decisions, err := policies.OpenDecisions(ctx, store, now)
	if err != nil {
		return err
	}
	const batch = 10_000
	for first := 0; first < n; first += batch {
		var all []policies.Decision
		for i := first; i < min(n, first+batch); i++ {
			d := stranger(i)
			if i == n-1 {
				d.Scope, d.Value = policies.ScopeAddress, refused
			}
			d.Action, d.Origin, d.By, d.Reason = rules.Refuse, policies.OriginOperator, "bench", "seeded"
			d.Until = now.Add(30 * 24 * time.Hour)
			all = append(all, d)
		}
		if _, err := decisions.RegisterAll(ctx, all, now); err != nil {
			return err
		}
	}
	return db.Close()
}

// stranger is the subject of the ith decision: four addresses, two networks, two
// accounts and two sessions in ten, each different from all others (i < 1<<22).
func stranger(i int) policies.Decision {
	scattered := uint32(i) * 2654435761 // an odd factor permutes the numbers of any number of bits
	switch i % 10 {
	case 0, 1, 2, 3:
		a := 1<<24 + uint32(i%100)<<24 | scattered&0xffffff
		return policies.Decision{Scope: policies.ScopeAddress, Value: address(a).String()}
	case 4, 5:
		a := 0x80<<24 | scattered<<8&0x3fffffff
		return policies.Decision{Scope: policies.ScopeNetwork, Value: netip.PrefixFrom(address(a), 24).String()}
	case 6, 7:
		return policies.Decision{Scope: policies.ScopeAccount, Value: fmt.Sprint(1_000_000 + i)}
	default:
		return policies.Decision{Scope: policies.ScopeSession, Value: fmt.Sprintf("%026X", scattered)}
	}
}

func address(a uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)})
}

// TestStrangers makes sure that n seeded decisions are n: two about one subject
// would be one.
func TestStrangers(t *testing.T) {
	load := netip.MustParseAddr("127.0.0.1")
	seen := make(map[policies.Decision]int)
	for i := range 100_000 {
		d := stranger(i)
		if other, taken := seen[d]; taken {
			t.Fatalf("decisions %d and %d are both about %s %s", other, i, d.Scope, d.Value)
		}
		seen[d] = i
		d.Origin, d.By, d.Until = policies.OriginOperator, "bench", time.Now().Add(time.Hour)
		if err := d.Validate(); err != nil {
			t.Fatalf("decision %d: %v", i, err)
		}
		switch d.Scope {
		case policies.ScopeAddress:
			if d.Value == load.String() || d.Value == refused {
				t.Fatalf("decision %d is about %s, where the load comes from", i, d.Value)
			}
		case policies.ScopeNetwork:
			if netip.MustParsePrefix(d.Value).Contains(load) {
				t.Fatalf("decision %d is about %s, where the load comes from", i, d.Value)
			}
		}
	}
}
