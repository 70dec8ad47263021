package policies

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/kidoban/kidoban/rules"
)

// Scope is the kind of subject a decision is about.
type Scope string

const (
	ScopeAddress     Scope = "address"     // one client address
	ScopeNetwork     Scope = "network"     // a prefix of addresses
	ScopeASN         Scope = "asn"         // an autonomous system, by number
	ScopeCountry     Scope = "country"     // ISO 3166-1 alpha-2
	ScopeAccount     Scope = "account"     // the backend's identifier of an account
	ScopeSession     Scope = "session"     // one of our sessions
	ScopeDevice      Scope = "device"      // one of our device cookies
	ScopeCredential  Scope = "credential"  // the hash of a credential, never the credential
	ScopeFingerprint Scope = "fingerprint" // of a client program
)

var scopes = [...]Scope{ScopeAddress, ScopeNetwork, ScopeASN, ScopeCountry, ScopeAccount,
	ScopeSession, ScopeDevice, ScopeCredential, ScopeFingerprint}

// AboutStrangers reports whether strangers may have given cause for a decision of a rule
// or a playbook with this scope: it is not about a device that its account knows (see
// [Subject]).
func (s Scope) AboutStrangers() bool {
	return s != ScopeSession && s != ScopeDevice && s != ScopeCredential
}

// Origin is what kind of maker a decision has.
type Origin string

const (
	OriginRule     Origin = "rule"
	OriginOperator Origin = "operator"
	OriginPlaybook Origin = "playbook"
)

// Decision is a verdict that lasts: about one subject, until a stated time.
// Times have microseconds, because that is what is stored.
type Decision struct {
	ID       string       `json:"id"`
	Scope    Scope        `json:"scope"`
	Value    string       `json:"value"` // canonical: "203.0.113.7", "203.0.113.0/24", "64500", "JP"
	Action   rules.Action `json:"action"`
	Mode     rules.Mode   `json:"mode"`
	Origin   Origin       `json:"origin"`
	By       string       `json:"by"`               // name of the operator or playbook, id of the rule
	Rule     rules.ID     `json:"rule,omitempty"`   // the rule that gave cause, also behind a playbook
	Reason   string       `json:"reason,omitempty"` // for people; at most 500 characters
	Incident string       `json:"incident,omitempty"`
	Entry    string       `json:"entry,omitempty"` // of the record: "node/sequence" of the intent of its last change that had one
	Window   time.Time    `json:"window,omitzero"` // start of the aligned window that the rule saw
	Created  time.Time    `json:"created"`
	Until    time.Time    `json:"until"`           // acts before this time, not at it
	Lifted   time.Time    `json:"lifted,omitzero"` // when somebody took it back; zero: nobody did
	LiftedBy string       `json:"lifted_by,omitempty"`
	HoldOff  time.Time    `json:"hold_off,omitzero"` // until when its rule may not decide the same again
	Force    bool         `json:"force,omitempty"`   // the maker means a very broad network; asked for, not kept
	Finding  string       `json:"-"`                 // id of what a rule found, and made it for; told when it is registered, not kept
}

const (
	maxReason     = 500 // characters
	maxValue      = 256 // bytes
	maxName       = 128 // bytes, of makers, rules, incidents and entries
	maxTTL        = 366 * 24 * time.Hour
	broadestIPv4  = 8
	broadestIPv6  = 19
	minHoldOff    = time.Hour
	maxHoldOff    = 24 * time.Hour
	decisionIDLen = 26
)

// FieldError says what is wrong with one field and what to write instead.
type FieldError struct {
	Field   string `json:"field"` // its JSON name
	Message string `json:"message"`
}

// FieldErrors are all faults of one value, in the order of its fields.
type FieldErrors []FieldError

func (e FieldErrors) Error() string {
	var b strings.Builder
	for i, f := range e {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(f.Field + ": " + f.Message)
	}
	return b.String()
}

// Live reports whether d acts at now: begun, not over, not lifted.
func (d Decision) Live(now time.Time) bool {
	return d.ID != "" && d.Lifted.IsZero() && now.Before(d.Until)
}

// Validate tells every fault of d as [FieldErrors]. A value that is valid but not
// canonical passes: [Decisions.Register] stores and returns the canonical form.
// A missing mode means enforce; a missing Created means the time of registration,
// and then only the sign of the life time cannot be judged here.
func (d Decision) Validate() error {
	_, err := d.canonical(d.Created)
	return err
}

// canonical is d with its value in canonical form, its times in UTC microseconds
// and its gaps filled, as if it were created at now. A zero now judges no times
// but the presence of an end.
func (d Decision) canonical(now time.Time) (Decision, error) {
	var faults FieldErrors
	fault := func(field, format string, args ...any) {
		faults = append(faults, FieldError{field, fmt.Sprintf(format, args...)})
	}

	value, broad, err := canonicalValue(d.Scope, d.Value)
	switch {
	case err != nil:
		faults = append(faults, *err)
	case broad && !d.Force:
		fault("value", "%s is broader than /%d (IPv4) or /%d (IPv6); write a narrower prefix, or set force if everybody in it is meant",
			value, broadestIPv4, broadestIPv6)
	}
	d.Value = value

	if d.Action > rules.Deceive {
		fault("action", "%s is none; want one of allow, delay, step_up, refuse, deceive", d.Action)
	}
	switch d.Mode {
	case rules.Enforce, rules.Shadow:
	case "":
		d.Mode = rules.Enforce
	default:
		fault("mode", "%q is none; want enforce or shadow", d.Mode)
	}
	switch d.Origin {
	case OriginRule:
		// A rule is its own maker; either field names it.
		if d.By == "" {
			d.By = string(d.Rule)
		}
		if d.Rule == "" {
			d.Rule = rules.ID(d.By)
		}
		if d.By != string(d.Rule) {
			fault("by", "names %q, but the rule is %q; leave it out", d.By, d.Rule)
		}
	case OriginOperator, OriginPlaybook:
	default:
		fault("origin", "%q is none; want rule, operator or playbook", d.Origin)
	}
	for _, f := range []struct {
		field, text string
		longest     int
		required    bool
	}{
		{"by", d.By, maxName, true},
		{"rule", string(d.Rule), maxName, false},
		{"incident", d.Incident, maxName, false},
		{"entry", d.Entry, maxName, false},
	} {
		switch {
		case f.text == "" && f.required:
			fault(f.field, "is missing; say who decides")
		case len(f.text) > f.longest:
			fault(f.field, "has %d bytes; at most %d", len(f.text), f.longest)
		case !plainText(f.text, false):
			fault(f.field, "contains control characters or is not UTF-8")
		}
	}
	switch n := utf8.RuneCountInString(d.Reason); {
	case n > maxReason:
		fault("reason", "has %d characters; at most %d", n, maxReason)
	case !plainText(d.Reason, true):
		fault("reason", "contains control characters or is not UTF-8")
	}

	if d.Created.IsZero() {
		d.Created = now
	}
	d.Created, d.Until, d.Window = toMicro(d.Created), toMicro(d.Until), toMicro(d.Window)
	switch {
	case d.Until.IsZero():
		fault("until", "is missing; every decision ends")
	case now.IsZero():
	case !d.Until.After(now):
		fault("until", "%s is not after %s; write a time to come", d.Until.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	case d.Until.Sub(now) > maxTTL:
		fault("until", "is %d days away; at most %d", int(d.Until.Sub(now)/(24*time.Hour)), int(maxTTL/(24*time.Hour)))
	}
	if len(faults) > 0 {
		return Decision{}, faults
	}
	return d, nil
}

// canonicalValue is the one text under which a subject is known. broad tells that
// a network is so large that it must be meant.
func canonicalValue(scope Scope, text string) (value string, broad bool, fault *FieldError) {
	bad := func(format string, args ...any) (string, bool, *FieldError) {
		return text, false, &FieldError{"value", fmt.Sprintf(format, args...)}
	}
	if text == "" && scope != "" {
		return bad("is missing; write the %s that is meant", scope)
	}
	if len(text) > maxValue {
		return bad("has %d bytes; at most %d", len(text), maxValue)
	}
	switch scope {
	case ScopeAddress:
		if p, err := netip.ParsePrefix(text); err == nil {
			if !p.IsSingleIP() {
				return bad("%s is a network; write scope %q, or one address such as %s", text, ScopeNetwork, p.Addr())
			}
			return canonicalAddr(p.Addr()).String(), false, nil
		}
		a, err := netip.ParseAddr(text)
		if err != nil {
			return bad("%q is not an address; write one such as 203.0.113.7 or 2001:db8::7", text)
		}
		if a.Zone() != "" {
			return bad("%q has a zone; write %s", text, a.WithZone(""))
		}
		return canonicalAddr(a).String(), false, nil
	case ScopeNetwork:
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return bad("%q is not a network; %s", text, networkAdvice(text))
		}
		p, ok := canonicalPrefix(p)
		if !ok {
			return bad("%q covers all of mapped IPv4 and more; write the IPv4 prefix itself, such as 203.0.113.0/24", text)
		}
		broadest := broadestIPv6
		if p.Addr().Is4() {
			broadest = broadestIPv4
		}
		return p.String(), p.Bits() < broadest, nil
	case ScopeASN:
		digits := text
		if len(text) > 2 && strings.EqualFold(text[:2], "AS") {
			digits = text[2:]
		}
		n, err := strconv.ParseUint(digits, 10, 32)
		if err != nil || n == 0 {
			return bad("%q is not a number of an autonomous system; write one such as 64500", text)
		}
		return strconv.FormatUint(n, 10), false, nil
	case ScopeCountry:
		c := strings.ToUpper(text)
		if len(c) != 2 || c[0] < 'A' || c[0] > 'Z' || c[1] < 'A' || c[1] > 'Z' {
			return bad("%q is not a country; write two letters such as JP (ISO 3166-1 alpha-2)", text)
		}
		return c, false, nil
	case ScopeAccount, ScopeSession, ScopeDevice, ScopeCredential, ScopeFingerprint:
		if !plainText(text, false) {
			return bad("contains control characters or is not UTF-8")
		}
		return text, false, nil
	default:
		names := make([]string, len(scopes))
		for i, s := range scopes {
			names[i] = string(s)
		}
		return text, false, &FieldError{"scope", fmt.Sprintf("%q is none; want one of %s", scope, strings.Join(names, ", "))}
	}
}

// networkAdvice says what to write instead of text, from what it looks like.
func networkAdvice(text string) string {
	if a, err := netip.ParseAddr(text); err == nil {
		a = canonicalAddr(a.WithZone(""))
		return fmt.Sprintf("write %s/%d, or scope %q", a, a.BitLen(), ScopeAddress)
	}
	if i := strings.IndexByte(text, '/'); i > 0 {
		if a, err := netip.ParseAddr(text[:i]); err == nil {
			a = a.WithZone("")
			return fmt.Sprintf("write %s/ followed by a number of bits, 0 to %d", a, a.BitLen())
		}
	}
	if strings.ContainsAny(text, "*") {
		return "write a prefix such as 203.0.113.0/24 instead of a star"
	}
	if strings.Contains(text, "-") {
		return "write a range as one or more prefixes, such as 203.0.113.0/24"
	}
	return "write a prefix such as 203.0.113.0/24 or 2001:db8::/32"
}

// nat64 is the well-known prefix of RFC 6052; sources arrive without it.
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// canonicalAddr takes an IPv4 address out of the IPv6 address around it, as the
// source of a request has it.
func canonicalAddr(a netip.Addr) netip.Addr {
	a = a.Unmap()
	if a.Is6() && nat64.Contains(a) {
		b := a.As16()
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return a
}

func canonicalPrefix(p netip.Prefix) (netip.Prefix, bool) {
	a := p.Addr()
	if u := canonicalAddr(a); u != a {
		if p.Bits() < 96 {
			// Shorter than the mapping prefix: within IPv6 it means next to nothing,
			// and whoever wrote it meant something else. NAT64's own is an exception.
			if a.Is4In6() {
				return p, false
			}
			return p.Masked(), true
		}
		return netip.PrefixFrom(u, p.Bits()-96).Masked(), true
	}
	return p.Masked(), true
}

// plainText reports whether s is UTF-8 without control characters; several lines
// are text too where lines may be.
func plainText(s string, lines bool) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if unicode.IsControl(r) && !(lines && (r == '\n' || r == '\t')) {
			return false
		}
	}
	return true
}

// toMicro is t as it comes back from storage.
func toMicro(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Microsecond)
}
