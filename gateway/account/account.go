// Package account is the desk where people see to their own account: how they add
// the first factor and further ones, what they see and change at /.kidoban/account,
// how they come back when all factors are lost, and how administrators help.
//
// # What it guarantees
//
// Whoever has the right password, and nothing else, adds no factor, removes none and
// learns nothing: the first factor needs evidence ([Desk.Bind]), each later change
// another factor that was given lately ([Visit].Fresh), a recovery a waiting time in
// which the owner can stop it ([Desk.Lost]).
//
// Every change is on the record before it is done, and told to the addresses of the
// account. What a page shows and changes belongs to the account of the visit: ids of
// others are unknown here.
//
// A form is answered by a redirection, so that going back and loading again do
// nothing. The exceptions are secrets that are shown once, and then only in the
// answer to the form: the secret for an app, recovery codes, an administrator's code.
//
// # How it is used
//
// The gate calls one method for each place, with a [Visit] that says who is there. It
// has let nobody in who is not: before a POST reaches the desk, the gate has checked
// its token, where it comes from and how often. Methods return an error only if they
// have not answered yet.
//
// # What it does not do
//
// It gives no session and sets no cookie, and asks for no factor of a login: that is
// the gate's. It keeps nothing in memory, so that any node may answer any request.
package account

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/gateway/pages"
	"github.com/kidoban/kidoban/policies"
)

// Where the gate serves the desk.
const (
	AccountPath = "/.kidoban/account"         // [Desk.Account], and what is below
	EnrolPath   = "/.kidoban/factor/enrol"    // [Desk.Bind], and what is below
	LinkPath    = "/.kidoban/factor/link"     // [Desk.Link]
	LostPath    = "/.kidoban/factor/lost"     // [Desk.Lost], and what is below
	CancelPath  = "/.kidoban/recovery/cancel" // [Desk.CancelRecovery]

	enrolPath  = "/enrol"            // [Desk.Bind], below where a login is held
	lostPath   = "/lost"             // [Desk.Lost], beside it
	stepUpPath = "/.kidoban/step-up" // the gate's: asks for a factor and goes back to ?to=
)

// ByOwner is who acts where the owner of an account does it: [auth.Act].By, and who
// ended a session.
const ByOwner = "owner"

// Desk is where people see to their own account. Its fields do not change while it is
// in use. It is safe for concurrent use.
type Desk struct {
	Factors   *auth.Factors
	Slips     *auth.Slips
	Sessions  *auth.Sessions
	Devices   *auth.Devices
	Directory *auth.Directory
	Holds     *auth.Holds
	Outbox    *policies.Outbox
	Site      pages.Site
	Log       *slog.Logger
	Mailing   bool // there is a mail server: links and codes can be mailed

	// Act puts an intent on the record and does it. The change carries the entry:
	// auth.Act{By, Entry}, and its time is at.
	Act func(ctx context.Context, kind string, body any, do func(ctx context.Context, entry string, at time.Time) error) error
	// EndSession ends a session, on record and on all nodes.
	EndSession func(ctx context.Context, id, by string) error
	// EndSessions ends those of an account but the one with the id except, "" for none.
	EndSessions func(ctx context.Context, subject, except, by string) error
	// Resolve is the account that a typed name leads to, in the same time whether or
	// not there is one; "" if there is none.
	Resolve func(ctx context.Context, name string) (subject string, err error)
	// Raise is called before the answer when the person of a session has bound an
	// authenticator, which shows as much as giving it would. It may raise the session
	// and rotate its cookie, and returns the visit as it is then. May be nil: then the
	// next change asks for the factor.
	Raise func(w http.ResponseWriter, r *http.Request, v Visit, kind auth.FactorKind) (Visit, error)
}

// Visit is who is at the desk.
type Visit struct {
	Session      *auth.Session // nil at a hold
	Subject      string        // "" behind a link that is opened where nobody is signed in
	Organization string
	Person       auth.Person
	Account      string // what to call the account: a name of the directory
	Policy       policies.FactorPolicy
	For          string         // what evidence is bound to: the id of the session or hold
	Approve      *auth.Approval // at a hold: binding a factor approves it
	Fresh        bool           // a factor was given lately enough, or there is none yet
	DeviceSince  time.Time      // since when the account knows this device; zero: it is not trusted
	Base         string         // path the pages live under: AccountPath; at a hold EnrolPath, or another place's /enrol
	CSRF         string         // for the hidden field "csrf" of each form
	Origin       string         // https://chat.example, for links in mails
	Language     string         // "ja" or "en"
	Client       string         // words for people, such as "Firefox on Windows"
	Country      string         // ISO 3166, of where the request comes from
	Now          time.Time
	Done         string // where to go afterwards
}

// Kinds of acts on the record.
const (
	actBind    = "act.factor.bind"
	actRemove  = "act.factor.remove"
	actRename  = "act.factor.rename"
	actDisable = "act.factor.disable"
	actBegin   = "act.recovery.begin"
	actCancel  = "act.recovery.cancel"
	actUse     = "act.evidence.use"
	actCode    = "act.enrolment.code"
	actEnable  = "act.factor.enable"
	actForget  = "act.device.forget"
)
