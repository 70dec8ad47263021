// Package api is what operators and their tools speak to: decisions, incidents,
// accounts, events, health and the report, as JSON under /v1. The contract is
// openapi.yaml, which the API serves at /v1/openapi.yaml.
//
// Every call is authenticated, by an operator's key or by AWS Signature Version 4,
// and carries that operator's name into what it does. Errors are RFC 9457 problem
// documents that name what is at fault. Bodies, lists, answers, calls at once and
// the time of a call are bounded. The API is made for a listener of its own and
// has a budget of its own, so that it answers while the front is under attack.
package api

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/once"
	"github.com/kidoban/kidoban/gateway/stream"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

const (
	maxBody   = 64 << 10         // bytes of a request body
	maxHeader = 16 << 10         // bytes of a request's target and headers
	maxCalls  = 64               // at once
	callTime  = 10 * time.Second // of one call, reading its body included
)

// Acts is what operators may do. Each act is on record before it is done, and is
// announced. Where that cannot be now the error is one of the record's or of the
// database's ([record.ErrUnavailable], [storage.Unavailable]), or [ErrUnavailable].
type Acts interface {
	// RegisterDecision makes d last; created tells whether it came into being or
	// was there already and may have been extended. Errors are as of
	// [policies.Decisions.Register].
	RegisterDecision(ctx context.Context, d policies.Decision) (made policies.Decision, created bool, err error)
	// LiftDecision takes a decision back. Lifting twice changes nothing. Errors are
	// as of [policies.Decisions.Lift].
	LiftDecision(ctx context.Context, id, by string) (policies.Decision, error)
	// EndSession ends a session. Errors are as of [auth.Sessions.End].
	EndSession(ctx context.Context, id, by string) (auth.Session, error)
	// EndSessions ends all sessions of an account and returns them.
	EndSessions(ctx context.Context, account, by string) ([]auth.Session, error)
	// RemoveFactor, DisableFactor and EnableFactor change an authenticator of an
	// account. Errors are as of [auth.Factors].
	RemoveFactor(ctx context.Context, account, id, by string) (auth.Factor, error)
	DisableFactor(ctx context.Context, account, id, by string) (auth.Factor, error)
	EnableFactor(ctx context.Context, account, id, by string) (auth.Factor, error)
	// IssueEnrolmentCode makes a code that lets an account bind its first factor. An
	// account that nobody knows is [policies.ErrNotFound].
	IssueEnrolmentCode(ctx context.Context, account, by string) (s auth.Slip, code string, err error)
	// CancelRecovery stops a recovery; where none is open the error is [auth.ErrNoSlip].
	CancelRecovery(ctx context.Context, account, by string) (auth.Slip, error)
}

// Decisions is what the API reads of decisions; [policies.Decisions] has it.
type Decisions interface {
	Get(ctx context.Context, id string, now time.Time) (policies.Decision, error)
	List(ctx context.Context, q policies.DecisionQuery, now time.Time) ([]policies.Decision, string, error)
}

// Sessions is what the API reads of sessions; [auth.Sessions] has it.
type Sessions interface {
	OfSubject(ctx context.Context, subject string, now time.Time) ([]auth.Session, error)
	History(ctx context.Context, subject string, limit int) ([]auth.Session, error)
}

// Devices is what the API reads of devices; [auth.Devices] has it.
type Devices interface {
	OfSubject(ctx context.Context, subject string, now time.Time) ([]auth.DeviceView, error)
}

// Factors is what the API reads of authenticators; [auth.Factors] has it.
type Factors interface {
	List(ctx context.Context, subject string) ([]auth.Factor, error)
}

// Slips is what the API reads of one-time codes; [auth.Slips] has it.
type Slips interface {
	Open(ctx context.Context, subject string, now time.Time) ([]auth.Slip, error)
}

// Holds is what the API reads of held log-ins; [auth.Holds] has it.
type Holds interface {
	OfSubject(ctx context.Context, subject string, now time.Time) ([]auth.Hold, error)
	History(ctx context.Context, subject string, limit int) ([]auth.Hold, error)
}

// RuleLife is what becomes of rules in force: why they matched, how their budgets stand,
// and how what they did is taken back. What changes something is an act as of [Acts].
type RuleLife interface {
	// Falls lists the rules in force that have fallen.
	Falls() []policies.Fallen
	// Standing is how a rule stands; where none with that id is in force the error is
	// [policies.ErrNotFound].
	Standing(ctx context.Context, id rules.ID) (policies.Standing, error)
	// SetRuleBack lets a rule that fell stand again. Errors as of Standing.
	SetRuleBack(ctx context.Context, id rules.ID, by string) (policies.Fallen, error)
	// Explain is what is behind the id of a finding or of a decision, or the code that
	// somebody reads out; [policies.ErrNotFound] where nothing is known of it.
	Explain(ctx context.Context, name string) (policies.Story, error)
	// MarkBenign notes that a finding was no attack. Errors as of Explain.
	MarkBenign(ctx context.Context, name, by string) (counts bool, err error)
	// PreviewUndo is what Undo would lift: live decisions that a rule made in [from, to).
	PreviewUndo(ctx context.Context, rule rules.ID, from, to time.Time) (policies.Undoing, error)
	Undo(ctx context.Context, rule rules.ID, from, to time.Time, by string) (policies.Undoing, error)
}

// Incidents is what rules propose to look into, and what becomes of it.
type Incidents interface {
	// ListIncidents is a page of incidents, as of [policies.Incidents.List].
	ListIncidents(ctx context.Context, q policies.IncidentQuery) (page []policies.Incident, next string, err error)
	// Incident is one with what belongs to it; [policies.ErrNotFound] where there is none.
	Incident(ctx context.Context, id string) (policies.IncidentView, error)
	// MoveIncident brings one into a state, which is an act as of [Acts]. Errors as of
	// [policies.Incidents.Move].
	MoveIncident(ctx context.Context, id string, to policies.IncidentState, note, by string) (policies.Incident, error)
}

// Server is what the API needs. All fields are required unless they say otherwise.
type Server struct {
	Acts      Acts
	Decisions Decisions
	Sessions  Sessions
	Devices   Devices
	// All three, or none where the gate has no second factors: the interfaces
	// themselves are nil then.
	Factors Factors
	Slips   Slips
	Holds   Holds
	// Report sums up the hours that begin in [from, to).
	Report func(ctx context.Context, from, to time.Time) ([]policies.LedgerRow, error)
	// Search finds events, the newest first; see [stream.Stream.Search].
	Search    func(context.Context, stream.Query) (page []detectors.Event, next stream.Cursor, err error)
	Rules     func() *rules.Set
	Life      RuleLife
	Incidents Incidents
	// Faults is what was left out of the configuration, and why. Optional.
	Faults func() []error
	// Parts tells how the parts of the gate are. Optional.
	Parts func(ctx context.Context) []PartHealth

	Operators *Operators
	Once      once.Store
	// Source is the address that a call came from. Optional: the peer's.
	Source func(*http.Request) netip.Addr

	Now func() time.Time
	Log *slog.Logger
}

// Handler returns the API. Its budget is that of one handler.
func (s *Server) Handler() http.Handler {
	h := &handler{
		Server:   s,
		slots:    make(chan struct{}, maxCalls),
		suspects: make(chan struct{}, maxSuspects),
		failures: newFailures(),
		verifier: s.Operators.verifier(s.Once, s.Now),
		mux:      http.NewServeMux(),
	}
	if h.Faults == nil {
		h.Faults = func() []error { return nil }
	}
	if h.Parts == nil {
		h.Parts = func(context.Context) []PartHealth { return nil }
	}
	if h.Source == nil {
		h.Source = peer
	}
	h.routes()
	return h
}

func peer(r *http.Request) netip.Addr {
	a, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return a.Addr().Unmap()
}
