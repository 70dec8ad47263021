package pages

import "time"

// Account is what each page of self-service has beside what it is about. Links and
// forms lead to Base and below; forms are sent by POST with FieldCSRF.
type Account struct {
	CSRF       string
	Base       string
	Account    string    // what to call it
	Recovering time.Time // when the code of an open recovery is mailed; zero: none is open. Form: Base/recovery/cancel
	Done       string    // what was just done: one of Dones
	Failed     string    // what was not done, and why: one of Faileds
	Others     int       // other sessions, offered to be ended. Form: Base/sessions/others
}

// forms reports whether the page has forms for this.
func (a Account) forms() bool { return !a.Recovering.IsZero() || a.Others > 0 }

// What was done on a page of self-service.
const (
	DoneBound     = "bound"
	DoneRemoved   = "removed"
	DoneRenamed   = "renamed"
	DoneDisabled  = "disabled"
	DoneEnabled   = "enabled"
	DoneForgotten = "forgotten"
	DoneEnded     = "ended"
	DoneEndedAll  = "ended-all"
	DoneCancelled = "cancelled"
)

// What was not done on a page of self-service, and why.
const (
	FailedRequired = "required" // the account must have a factor
	FailedName     = "name"     // not a name
	FailedFull     = "full"     // as many factors of the kind as there may be
	FailedOver     = "over"     // what was begun took too long
	FailedRebind   = "rebind"   // disabled by too many wrong codes
	FailedNoFactor = "first"    // recovery codes are for who has a factor
)

// Dones and Faileds are all of these.
var (
	Dones   = []string{DoneBound, DoneRemoved, DoneRenamed, DoneDisabled, DoneEnabled, DoneForgotten, DoneEnded, DoneEndedAll, DoneCancelled}
	Faileds = []string{FailedRequired, FailedName, FailedFull, FailedOver, FailedRebind, FailedNoFactor}
)

// AccountHome is the overview.
type AccountHome struct {
	Account
	Factors  int  // apps and keys that can be used
	Codes    int  // recovery codes that are left
	Locked   bool // there are factors, and none can be used
	Devices  int
	Sessions int
	Help     bool // an administrator, who can help others. Link: Base/help
}

func (h AccountHome) screen() screen {
	return screen{template: "account-home", title: "account.title", forms: h.forms()}
}

// FactorRow is a factor as its owner sees it.
type FactorRow struct {
	ID       string
	Kind     string // "totp" or "key"
	Name     string
	Added    time.Time
	Used     time.Time // zero: never
	State    string    // "active", "off" by the owner, "locked" by wrong codes, "stopped" by somebody else
	Failures int       // wrong attempts in a row
}

// AccountFactors lists apps and keys.
type AccountFactors struct {
	Account
	Factors []FactorRow
}

func (f AccountFactors) screen() screen {
	return screen{template: "account-factors", title: "account.factors", forms: f.forms()}
}

// AccountFactor is one of them. Forms: rename with FieldName, remove, disable and
// enable, below Base/factors/ID.
type AccountFactor struct {
	Account
	Factor FactorRow
	Last   bool // no other can be used
	Only   bool // there is no other
}

func (AccountFactor) screen() screen {
	return screen{template: "account-factor", title: "account.factor", forms: true}
}

// AccountAdd adds a factor. With Evidence its form sends FieldDo "key" or "totp" to
// Action; without, as in [Owed], others send FieldCSRF to LinkAction, or FieldCode to
// CodeAction.
type AccountAdd struct {
	Account
	Evidence   bool
	Action     string
	Mail       []string // where a link can be sent, masked
	LinkAction string   // empty: not offered
	Sent       bool
	CodeAction string // empty: not offered
	WrongCode  bool
	Device     time.Duration // a device that was known for this long is evidence; 0: none is
}

func (a AccountAdd) screen() screen {
	return screen{template: "account-add", title: "account.add", forms: a.forms() || a.Evidence || a.LinkAction != "" || a.CodeAction != ""}
}

// AppCode asks once more for a code of an app that has its secret already: FieldCode
// to Action.
type AppCode struct {
	Action, CSRF string
	Cancel       string // link: begins again
}

func (AppCode) screen() screen {
	return screen{template: "account-app", title: "enrol-totp.title", forms: true}
}

// AccountCodes tells how many recovery codes are left. Its form makes new ones, to
// Base/codes.
type AccountCodes struct {
	Account
	Left  int
	Few   bool      // it is time for new ones
	Made  time.Time // zero: there are none
	Offer bool      // there is an app or key that they can stand in for
}

func (c AccountCodes) screen() screen {
	return screen{template: "account-codes", title: "account.codes", forms: c.forms() || c.Offer}
}

// DeviceRow is a device that the account has used.
type DeviceRow struct {
	ID      string
	Client  string // what was last used on it; empty: not known
	Since   time.Time
	Last    time.Time
	State   string // "trusted", "probation" or "forked"
	Current bool
}

// AccountDevices lists them. Forms: FieldID to Base/devices forgets one.
type AccountDevices struct {
	Account
	Devices []DeviceRow
}

func (d AccountDevices) screen() screen {
	return screen{template: "account-devices", title: "account.devices", forms: d.forms() || len(d.Devices) > 0}
}

// FieldID is which of several things a form of self-service is about.
const FieldID = "id"

// SessionRow is a session.
type SessionRow struct {
	ID      string
	Client  string
	Place   string
	Program bool // it has no cookie of ours
	Since   time.Time
	Seen    time.Time
	AAL     int
	Current bool
}

// AccountSessions lists sessions. Forms: FieldID to Base/sessions ends one,
// Base/sessions/others all but this one.
type AccountSessions struct {
	Account
	Sessions []SessionRow
	More     bool // there are others than this one
}

func (s AccountSessions) screen() screen {
	return screen{template: "account-sessions", title: "account.sessions", forms: s.forms() || len(s.Sessions) > 1 || s.More}
}

// EventRow is one line of the history.
type EventRow struct {
	At     time.Time
	What   string // "begun", "out", "own", "replaced", "expired", "recovered", "stopped", "unanswered", "denied"
	Client string
	Place  string
	AAL    int // of "begun"
}

// Alarming reports whether somebody who was not let in had the right password.
func (e EventRow) Alarming() bool { return e.What == "unanswered" || e.What == "denied" }

// AccountHistory is the history of signing in, the newest first.
type AccountHistory struct {
	Account
	Events []EventRow
}

func (h AccountHistory) screen() screen {
	return screen{template: "account-history", title: "account.history", forms: h.forms()}
}

// AccountHelp lets an administrator make a code for a colleague: FieldName, the name
// with which that one signs in, to Base/help.
type AccountHelp struct {
	Account
	Weak bool // the administrator has no factor, and must have one first
}

func (h AccountHelp) screen() screen {
	return screen{template: "account-help", title: "account.help", forms: h.forms() || !h.Weak}
}

// AccountHelpCode shows that code, once, whether or not there is such an account.
type AccountHelpCode struct {
	Account
	Name  string
	Code  string
	Until time.Time // in the reader's zone
}

func (c AccountHelpCode) screen() screen {
	return screen{template: "account-help-code", title: "account.help.code", forms: c.forms()}
}

// AccountNone says that there is no such thing, or not any more.
type AccountNone struct{ Account }

func (n AccountNone) screen() screen {
	return screen{template: "account-none", title: "account.none", forms: n.forms()}
}

// LostElse says that nothing can be mailed, and so nothing recovered here.
type LostElse struct {
	Cancel string // link: back
}

func (LostElse) screen() screen { return screen{template: "account-lost", title: "lost.title"} }

// StopOver says that there is no recovery to stop.
type StopOver struct{}

func (StopOver) screen() screen { return screen{template: "account-stop", title: "account.stop"} }

// Clock is t as lists have it: in the zone that it came in, which [Account.Zone] tells.
func (Account) Clock(lang string, t time.Time) string {
	if lang == "ja" {
		return t.Format("2006年1月2日 15:04")
	}
	return t.Format("2 January 2006, 15:04")
}

// Zone is the zone of t, in words.
func (Account) Zone(t time.Time) string { return zoneName(t) }
