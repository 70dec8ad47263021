package limits

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ulule/limiter/v3"
)

// KeyKind is what a limit counts by.
type KeyKind string

const (
	KeyAddress      KeyKind = "address"      // one client address
	KeyNetwork      KeyKind = "network"      // the counting network: one IPv4 address, or an IPv6 /64
	KeyAccount      KeyKind = "account"      // the backend's stable identifier
	KeySession      KeyKind = "session"      // one session of ours
	KeyCredential   KeyKind = "credential"   // one credential of the backend
	KeyOrganization KeyKind = "organization" // one tenant
	KeyRoute        KeyKind = "route"        // one route class, all clients together
	KeyDevice       KeyKind = "device"       // one device cookie
)

// KeyKinds lists every kind of key.
func KeyKinds() []KeyKind {
	return []KeyKind{KeyAddress, KeyNetwork, KeyAccount, KeySession, KeyCredential, KeyOrganization, KeyRoute, KeyDevice}
}

// Mode says whether a limit refuses or only reports. Empty means Enforce.
type Mode string

const (
	Enforce Mode = "enforce"
	Shadow  Mode = "shadow" // counts and is reported in Decision.Shadow, never refuses
)

// Limit is one named limit. It is read-only once a [Limiter] has seen it.
type Limit struct {
	Name  string       // unique among the limits of a site; part of the counter's key; clients see it in the RateLimit fields
	Key   KeyKind      // what it counts by
	Rate  limiter.Rate // as ParseRate reads it
	Match []string     // route classes it concerns; empty: all
	Mode  Mode
}

// Validate tells everything that is wrong with l.
func (l *Limit) Validate() error {
	var faults []error
	if l.Name == "" || len(l.Name) > 64 || strings.ContainsFunc(l.Name, func(r rune) bool { return !nameRune(r) }) {
		faults = append(faults, fmt.Errorf("limit %q: the name must be 1 to 64 of a-z, A-Z, 0-9, '-', '_' and '.'", l.Name))
	}
	if !slices.Contains(KeyKinds(), l.Key) {
		faults = append(faults, fmt.Errorf("limit %q: unknown key %q: want one of %v", l.Name, l.Key, KeyKinds()))
	}
	if l.Mode != "" && l.Mode != Enforce && l.Mode != Shadow {
		faults = append(faults, fmt.Errorf("limit %q: unknown mode %q: want enforce or shadow", l.Name, l.Mode))
	}
	if err := checkRate(l.Rate); err != nil {
		faults = append(faults, fmt.Errorf("limit %q: %w", l.Name, err))
	}
	for _, class := range l.Match {
		if strings.TrimSpace(class) == "" {
			faults = append(faults, fmt.Errorf("limit %q: an empty route class matches nothing: remove it, or leave the list out to match all", l.Name))
		}
	}
	return errors.Join(faults...)
}

func nameRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.'
}

const (
	maxCount  = 1_000_000_000
	minPeriod = time.Second
	maxPeriod = 24 * time.Hour
)

// ParseRate reads "600/1m": a count from 1 to 1,000,000,000, a slash, and a
// period from 1s to 24h as [time.ParseDuration] reads it, in whole seconds; the
// number may be left out of a single unit ("10/s", "600/m", "5/h", "1000/d").
// The result's Formatted is the one spelling of that rate.
func ParseRate(text string) (limiter.Rate, error) {
	count, period, ok := strings.Cut(text, "/")
	if !ok {
		return limiter.Rate{}, fmt.Errorf("rate %q: want COUNT/PERIOD, such as 600/1m", text)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(count), 10, 64)
	if err != nil {
		return limiter.Rate{}, fmt.Errorf("rate %q: the count %q is not a whole number, want one from 1 to %d", text, count, maxCount)
	}
	var d time.Duration
	switch period = strings.TrimSpace(period); period {
	case "s":
		d = time.Second
	case "m":
		d = time.Minute
	case "h":
		d = time.Hour
	case "d", "1d":
		d = 24 * time.Hour
	default:
		if d, err = time.ParseDuration(period); err != nil {
			return limiter.Rate{}, fmt.Errorf("rate %q: the period %q is not a duration, want one such as 10s, 1m or 24h", text, period)
		}
	}
	rate := limiter.Rate{Limit: n, Period: d}
	if err := checkRate(rate); err != nil {
		return limiter.Rate{}, fmt.Errorf("rate %q: %w", text, err)
	}
	rate.Formatted = formatRate(rate)
	return rate, nil
}

func checkRate(r limiter.Rate) error {
	switch {
	case r.Limit < 1 || r.Limit > maxCount:
		return fmt.Errorf("the count %d is out of bounds, want 1 to %d", r.Limit, maxCount)
	case r.Period < minPeriod || r.Period > maxPeriod:
		return fmt.Errorf("the period %s is out of bounds, want 1s to 24h", r.Period)
	case r.Period%time.Second != 0:
		return fmt.Errorf("the period %s is not in whole seconds", r.Period)
	}
	return nil
}

// formatRate writes a rate with the largest unit that divides its period.
func formatRate(r limiter.Rate) string {
	n, unit := int64(r.Period/time.Second), "s"
	if n%3600 == 0 {
		n, unit = n/3600, "h"
	} else if n%60 == 0 {
		n, unit = n/60, "m"
	}
	return strconv.FormatInt(r.Limit, 10) + "/" + strconv.FormatInt(n, 10) + unit
}
