// Package policies says what to do about what the rules found.
//
// # What it guarantees
//
// A [Verdict] is what to do with one request and why, from a closed set of
// reasons. A [Decision] is a verdict that lasts: about one subject, until a
// stated time, made by somebody or something that is named in it.
//
// [Decisions] is the live set. A decision is durable before it is visible, and
// when Register returns it is both. Its end is tested whenever it is asked about,
// so it stops on time with the sweeper stopped and the database away. Registering
// again extends and never shortens. Lifting leaves a hold-off, so that the rule
// that made the decision, or a node that lags behind, cannot bring it back.
// Reading takes no lock and allocates nothing.
//
// [Outbox] keeps what is to be told. A notice comes into being in the transaction
// of what it tells of, or not at all; it is handed out until it is settled, to one
// holder at a time.
//
// [Incidents] are what findings of rules propose to look into. Of one category and
// subject one is open, on all nodes together, and takes up what is found further. How it
// came into each state stays on it: when, in whose name and by which criteria.
//
// [Backend] describes a protected service as data: what its routes do, how its
// answers tell success from failure, what it accepts as proof, how it says who
// somebody is. A preset is read strictly, and all its faults are told at once.
//
// [Ledger] counts what the gate did or, in observe mode, would have done.
//
// # Precedence
//
// Several decisions may be about one request. The strongest acts:
//
//  1. an operator's denial (anything but allow), the strictest first
//  2. an operator's allowance
//  3. a denial by a rule or a playbook, the strictest first
//  4. an allowance by a rule or a playbook
//
// Decisions in shadow mode compete among themselves and never act. What rules and
// playbooks decided on an address, a network, an ASN, a country or a fingerprint
// is not about a device that its account knows.
//
// # What it does not do
//
// It reads no request, writes no response and knows no Caddy. It delivers no
// notice: it keeps them for whoever does, and tells subscribers what changed. Network messages between
// nodes are not its affair either; what other nodes committed it learns from SQL.
package policies
