package policies

import (
	"cmp"
	"slices"
	"time"

	"github.com/kidoban/kidoban/rules"
)

// Reason says why, from a closed set ([Reasons]). It is the metric label, the
// field in the record and what tests compare; it is never shown to a client.
type Reason string

const (
	ReasonNone                 Reason = ""
	ReasonDecision             Reason = "decision"              // a lasting decision covers the subject
	ReasonRule                 Reason = "rule"                  // a rule matched this request
	ReasonLimit                Reason = "limit"                 // a rate limit is exhausted
	ReasonUnidentified         Reason = "unidentified"          // the backend could not be made to say who this is
	ReasonUnapprovedCredential Reason = "unapproved_credential" // a credential without a session of ours
	ReasonAmbiguous            Reason = "ambiguous"             // the request can be read in more than one way
	ReasonTooLarge             Reason = "too_large"             // a body longer than what must be read
	ReasonUnsupportedEncoding  Reason = "unsupported_encoding"  // a body that cannot be read
	ReasonSourceUnknown        Reason = "source_unknown"        // no client address that can be believed
	ReasonEarlyData            Reason = "early_data"            // 0-RTT where replay would matter
	ReasonSessionEnded         Reason = "session_ended"         // the session was ended
	ReasonStorageUnavailable   Reason = "storage_unavailable"   // what must be durable cannot be written
	ReasonIdentifyFailed       Reason = "identify_failed"       // the whoami route failed
	ReasonDeviceForked         Reason = "device_forked"         // the device cookie lives in two places
	ReasonFactorDue            Reason = "factor_due"            // a second factor, or a mailed code, is asked for
	ReasonClosedRoute          Reason = "closed_route"          // a route that the preset closes, or closes to who is not in
	ReasonHoldFailed           Reason = "hold_failed"           // an answer that must be held cannot be
	ReasonForeignForm          Reason = "foreign_form"          // a form of ours that was not sent from the page it belongs to
)

var reasons = []Reason{
	ReasonNone, ReasonDecision, ReasonRule, ReasonLimit, ReasonUnidentified,
	ReasonUnapprovedCredential, ReasonAmbiguous, ReasonTooLarge, ReasonUnsupportedEncoding,
	ReasonSourceUnknown, ReasonEarlyData, ReasonSessionEnded, ReasonStorageUnavailable,
	ReasonIdentifyFailed, ReasonDeviceForked, ReasonFactorDue, ReasonHoldFailed, ReasonForeignForm, ReasonClosedRoute,
}

// Reasons is the closed set, ReasonNone included.
func Reasons() []Reason { return slices.Clone(reasons) }

// Verdict is what to do with one request, and why. The zero value allows.
type Verdict struct {
	Action    rules.Action    `json:"action"`
	Reason    Reason          `json:"reason,omitempty"`
	Rule      rules.ID        `json:"rule,omitempty"`     // the rule that decided, also behind a decision
	Decision  string          `json:"decision,omitempty"` // id of the decision that decided
	Finding   string          `json:"finding,omitempty"`  // id of what the rule found, where no decision did
	Until     time.Time       `json:"until,omitzero"`     // when trying again may help; zero: not known
	Delay     time.Duration   `json:"delay_ns,omitempty"` // how long to hold the answer back, before jitter
	Reference string          `json:"reference,omitempty"`
	Findings  []rules.Finding `json:"findings,omitempty"` // all that matched, also in shadow
}

// Stricter joins two verdicts on the same request: the stricter action with its
// own reason, the longer delay, the findings of both. Between equals it is a that
// speaks, unless a says nothing; two equal denials last until the later end.
func (a Verdict) Stricter(b Verdict) Verdict {
	v := a
	if b.Action > a.Action || b.Action == a.Action && a.Reason == ReasonNone {
		v = b
	}
	if a.Action == b.Action {
		v.Until = a.Until
		if b.Until.After(a.Until) {
			v.Until = b.Until
		}
	}
	v.Delay = max(a.Delay, b.Delay)
	v.Reference = cmp.Or(v.Reference, a.Reference, b.Reference)
	if len(a.Findings)+len(b.Findings) > 0 {
		v.Findings = slices.Concat(a.Findings, b.Findings)
	}
	return v
}
