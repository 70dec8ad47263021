// Package auth knows who it is: the directory of accounts, the devices they use,
// the sessions that tie a backend's credentials to both, and the authenticators that
// an account's owner has beside the password.
//
// # What it guarantees
//
// [Sessions]: a session is durable when Begin returns, and over for every caller
// that asks after End returned. The session's token is 256 random bits; only its
// SHA-256 is kept. A credential of the backend belongs to at most one session.
// What ended stays known as ended for as long as the backend may honour its
// credentials, so that a credential of an ended session is never "unknown".
// Reading a session that is in memory takes no SQL and allocates nothing.
//
// [Directory]: what the backend said about an account survives later answers that
// say less. Looking up a typed name costs the same whether or not it exists.
//
// [Devices]: a device cookie cannot be made up, names nobody, and changes with
// each completed login; a copy that is used after the original moved on is
// noticed, and costs the device its trust for good.
//
// [Factors]: a code of an app or of a recovery list works once, and an answer of a
// key once and for one purpose, on all nodes together. Wrong codes in a row are
// counted before they are compared, slow the next ones down, and disable the
// authenticator, never the account. Whatever is wrong, whoever tries gets the same
// answer for the same work. Secrets are sealed by what the caller passes. What an
// owner is to be told is stored with the change itself.
//
// [Holds]: the answer to a login that owes a factor is sealed until one is given. It
// is approved in the transaction that uses a code up, and released in the one that
// stores the session: once, on all nodes together. One that nobody approves is told
// to the owner, once.
//
// [Slips]: a mailed code or link, or one of an administrator, works once. Wrong ones
// are counted for the account, and a new one sets no count back.
//
// # Several nodes
//
// On PostgreSQL several processes share the tables. Their changes come one after
// the other, and each reads what the others committed. What is in memory may be
// older: Reconcile of Sessions and Directory takes over what others changed, and
// until it is called a session that ended elsewhere may still be found good here.
// Nothing is refused, and nobody taken for a visitor, for what is in memory alone.
// Devices, Factors, Holds and Slips have nothing in memory.
//
// A change whose commit was not answered fails with [ErrUncertain]; all other
// errors mean that nothing was changed. A change may carry the id of an entry of
// the record ([Act]), by which [Sessions.Acted] tells later whether it happened.
//
// # How it is used
//
// Each of the six is opened over a store. [SQLStore] is the durable one, for
// SQLite and PostgreSQL, [MemoryStore] one for tests and demonstrations that
// forgets with the process.
// All times are arguments and are kept in whole microseconds, in UTC. Sweep of
// Sessions, Devices, Factors, Holds and Slips is to be called about once a minute, and once before
// the process ends; every 10 s where there are several nodes. Everything exported is safe for concurrent use.
//
// # What it does not do
//
// It speaks neither HTTP nor to the backend, sets no cookie, starts no goroutine
// and keeps no password. Nobody else writes its tables. Whoever can write to the
// database can make a session. It decides neither who must have a factor nor who may
// bind one: whoever calls it has made sure of that, and delivers the notices.
package auth
