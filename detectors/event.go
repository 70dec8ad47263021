// Package detectors turns what happens at the gate into signals.
//
// An [Event] is one thing that happened; it is immutable and carries its own
// time. A [Detector] assesses an event before it is decided on and observes it
// after its outcome is known. Detectors do no I/O, start no goroutine, hold no
// lock and read no clock: the only time they know is Event.Time, so that live
// traffic and a replayed record run the same code. [Set] joins them and adds the
// lock.
//
// State is bounded: each detector states its bound and what it forgets first.
// What a detector says is evidence for rules (package rules), never a verdict.
package detectors

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Kind is what happened.
type Kind string

const (
	Login   Kind = "login"   // a login attempt with its outcome; one event per typed name
	Door    Kind = "door"    // a credential turned out authenticated outside a login route
	Session Kind = "session" // a session of ours: Act says what became of it; without one a credential was used
	Request Kind = "request" // a reset, signup, invitation and the like, passed on or refused; one per address or name it would write to
	Factor  Kind = "factor"  // a second factor was given, or was wrong

	Message  Kind = "message"  // a message was sent through a route of class message, or was refused
	Operator Kind = "operator" // somebody acted through the operators' API: Act says what was done, Actor by whom
)

// Act is what was done, where a kind does not say it. Of operators it is the name of
// the act on the record, such as "decision.lift".
type Act string

const (
	Begun  Act = "begun"  // a session began: the log-in or door before it was completed
	Minted Act = "minted" // the backend handed out a token to somebody who is in, and it has a session of its own
	Ended  Act = "ended"  // a session was ended, by Actor
)

// Outcome is how the backend, or the gate before it, answered.
type Outcome string

const (
	Unknown Outcome = "unknown" // aborted, backend dead, or no condition matched; counts for limits, not for histories
	Success Outcome = "success" // the backend accepted the credentials
	Failure Outcome = "failure" // the backend evaluated the credentials and said no
	Refused Outcome = "refused" // the gate answered; the backend never evaluated the credentials
)

// RouteClass is what a route does, as a preset declares it.
type RouteClass string

const (
	Other          RouteClass = ""
	LoginRoute     RouteClass = "login"
	Logout         RouteClass = "logout"
	Signup         RouteClass = "signup"
	Reset          RouteClass = "reset"
	ChangePassword RouteClass = "change_password"
	ChangeEmail    RouteClass = "change_email"
	TokenMint      RouteClass = "token_mint"
	Invite         RouteClass = "invite"
	Identify       RouteClass = "identify"
	Public         RouteClass = "public"
	Sensitive      RouteClass = "sensitive"
	MessageRoute   RouteClass = "message"
)

// Digest is a keyed, truncated hash (purpose "digest" of the keyring) of
// something that must be compared but not kept. Its text is lower-case hex; the
// zero value means "none" and its text is empty.
type Digest [16]byte

// IsZero reports whether d is no digest at all.
func (d Digest) IsZero() bool { return d == Digest{} }

func (d Digest) String() string {
	if d.IsZero() {
		return ""
	}
	return hex.EncodeToString(d[:])
}

// MarshalText implements encoding.TextMarshaler.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText accepts what MarshalText writes and nothing else.
func (d *Digest) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*d = Digest{}
		return nil
	}
	if len(text) != 2*len(d) {
		return fmt.Errorf("digest: %d characters, want %d", len(text), 2*len(d))
	}
	_, err := hex.Decode(d[:], text)
	return err
}

// Account is the backend's stable identifier of an account, as identify learned it.
type Account string

// Organization is the tenant an account belongs to.
type Organization string

// EventKey identifies an event across nodes and restarts.
type EventKey struct {
	Node        string `json:"node"`
	Incarnation uint64 `json:"incarnation"` // one per process start
	Sequence    uint64 `json:"sequence"`    // from 1, without gaps, per incarnation
}

// Compare orders keys by node, incarnation and sequence.
func (k EventKey) Compare(other EventKey) int {
	return cmp.Or(strings.Compare(k.Node, other.Node), cmp.Compare(k.Incarnation, other.Incarnation), cmp.Compare(k.Sequence, other.Sequence))
}

// Source is where a request came from. The zero value means "not known", which
// is its own class and never a safe one.
type Source struct {
	Address netip.Addr   `json:"address"` // unmapped from IPv6 and NAT64, without zone
	Network netip.Prefix `json:"network"` // what counters key on: the /64 of an IPv6 address, the /32 of an IPv4 address
	Port    uint16       `json:"port,omitempty"`
	ASN     uint32       `json:"asn,omitempty"`     // 0: unknown
	Country string       `json:"country,omitempty"` // ISO 3166-1 alpha-2; empty: unknown
	Shared  bool         `json:"shared,omitempty"`  // known to be shared by many people (office, CGNAT)
}

// DeviceState is how far a device cookie may be believed.
type DeviceState string

const (
	NoDevice  DeviceState = ""          // no cookie, or one we did not sign
	Stranger  DeviceState = "stranger"  // our cookie, but this account never completed a login on it
	Probation DeviceState = "probation" // a completed login on this account, less than a day ago
	Trusted   DeviceState = "trusted"   // a completed login on this account, a day ago or longer
	Forked    DeviceState = "forked"    // the cookie lives in two places: copied, believed no more
)

// Device is the client as our device cookie tells it, seen from the account
// that the attempt names.
type Device struct {
	ID    string      `json:"id,omitempty"`
	State DeviceState `json:"state,omitempty"`
}

// Known reports whether d completed a login on the account in question and was
// not copied since: its attempts are its own affair, not its address's.
func (d Device) Known() bool { return d.State == Probation || d.State == Trusted }

// Name is what somebody typed into a login form. Counters key on Digest, the
// keyed hash of its canonical form; nothing else does.
type Name struct {
	Digest  Digest `json:"digest"`
	Display string `json:"display,omitempty"` // canonical form, only where policy allows to keep it
}

// PasswordFacts are what may be known of a password without keeping it. [Set.Facts]
// derives Repeat, Typo and Popularity from the digests, which are on the stream and in
// its spool only: what is kept longer has the facts.
type PasswordFacts struct {
	Digest Digest   `json:"digest,omitzero"` // keyed, of the password in NFKC
	Near   []uint32 `json:"near,omitempty"`  // keyed, truncated: of the password and of all that is left of it without one character; at most 33

	Repeat     bool `json:"repeat,omitempty"`     // the same wrong pair was tried before
	Typo       bool `json:"typo,omitempty"`       // within edit distance of one that later proved right
	Breached   bool `json:"breached,omitempty"`   // in the operator's list of breached passwords
	Popularity int  `json:"popularity,omitempty"` // height on the ladder of popular failed passwords, 0..48
}

// Existence is whether a typed name is one of an account, as far as the gate knows.
type Existence string

const (
	Unsure  Existence = ""        // nothing speaks for either
	Exists  Existence = "exists"  // the directory has it
	Missing Existence = "missing" // the backend said so, or the directory is complete and has it not
)

// Client is what a client program shows of itself. Each part is empty where it is
// not known, and unknown is never safe.
type Client struct {
	JA4        string `json:"ja4,omitempty"`        // TLS client fingerprint, without what resumption adds
	Headers    string `json:"headers,omitempty"`    // digest of which header fields it sends; 12 hex digits
	Family     string `json:"family,omitempty"`     // of the User-Agent, such as chrome or python-requests
	Incoherent bool   `json:"incoherent,omitempty"` // these do not go together
}

// Fingerprint joins what c shows to what rules and decisions name: "ja4/headers/family",
// empty where nothing is known.
func (c Client) Fingerprint() string {
	if c.JA4 == "" && c.Headers == "" && c.Family == "" {
		return ""
	}
	return c.JA4 + "/" + c.Headers + "/" + c.Family
}

// History is what the gate knew of the account that an attempt names, and of the
// network that it came from, before the attempt. [Set.Facts] fills it in. The zero
// value is an account that never completed a login here.
type History struct {
	Logins   int  `json:"logins,omitempty"`   // completed; counts to 255
	Network  bool `json:"network,omitempty"`  // the account logged in from this counting network
	Operator bool `json:"operator,omitempty"` // from this autonomous system
	Client   bool `json:"client,omitempty"`   // with a client of this fingerprint
	Capacity int  `json:"capacity,omitempty"` // different accounts that log in from this network, within a week or two; counts to 1,000
}

// Event is one thing that happened. It is built once and passed by value.
type Event struct {
	Key        EventKey  `json:"key"`
	StreamTime time.Time `json:"stream_time"`      // when the stream took it
	Time       time.Time `json:"time"`             // when it happened, clamped to ±5 s of StreamTime; the only clock of detectors
	Offset     int16     `json:"offset,omitempty"` // minutes that the service's clock was ahead of UTC at Time
	Shift      int16     `json:"shift,omitempty"`  // minutes that the organization's was ahead of that one; 0 too where no organization is known
	Kind       Kind      `json:"kind"`

	Name         Name         `json:"name,omitzero"`
	Existence    Existence    `json:"existence,omitempty"`
	Account      Account      `json:"account,omitempty"`
	AccountSince time.Time    `json:"account_since,omitzero"` // when the gate first saw the account complete a login
	Organization Organization `json:"organization,omitempty"`
	History      History      `json:"history,omitzero"`
	Session      string       `json:"session,omitempty"`

	Source      Source        `json:"source"`
	Device      Device        `json:"device,omitzero"`
	Client      Client        `json:"client,omitzero"`
	Fingerprint string        `json:"fingerprint,omitempty"` // Client.Fingerprint
	Route       RouteClass    `json:"route,omitempty"`
	Credential  string        `json:"credential,omitempty"` // kind of the credential involved, as the preset names it
	Outcome     Outcome       `json:"outcome"`
	Unproven    bool          `json:"unproven,omitempty"` // of a success: the gate withholds it until more is proven; it vouches for nobody
	Reason      string        `json:"reason,omitempty"`   // of a refusal: one of the closed set of package policies
	Password    PasswordFacts `json:"password,omitzero"`
	Ambiguous   bool          `json:"ambiguous,omitempty"` // the request could be read in more than one way
	Size        int64         `json:"size,omitempty"`      // bytes of the request body
	Targets     int           `json:"targets,omitempty"`   // whom a message goes to; 0: not known
	Act         Act           `json:"act,omitempty"`       // of a session or an operator
	Actor       string        `json:"actor,omitempty"`     // who did it: an operator's name, or "owner", "backend" and the like; empty: the account itself
}

// Local is Time as a clock shows it where the organization is, or else the service; as
// such it is in UTC. Both offsets are of Time, so a clock that is put forward or back is
// followed, and who replays e needs to know no zone.
func (e *Event) Local() time.Time {
	return e.Time.UTC().Add(time.Duration(int(e.Offset)+int(e.Shift)) * time.Minute)
}

// CountingNetwork is the prefix counters key on: one IPv4 address, or the /64 an
// IPv6 address lives in (a single customer owns all of it).
func CountingNetwork(a netip.Addr) netip.Prefix {
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}
