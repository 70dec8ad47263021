// Package stream carries events between nodes: each node sees what happens at all
// of them, so that its detectors count attacks that are spread over nodes.
//
// # What is promised
//
//   - Publish gives an event its key (node, incarnation, sequence), keeps it in the
//     journal and delivers it to the node's own subscribers before it returns. It
//     never waits for Redis. A disk that is full or read-only neither blocks nor fails
//     it; one that hangs does block it.
//   - A subscriber gets each event once, one at a time, its own node's and the others'
//     alike. Events of one life of a node come in the order of their sequence, those
//     that had to be repaired later; across nodes there is no order.
//   - An event that is on disk survives the end of the process, kill -9 too. A power
//     cut may take the last second: events are evidence, not truth; truth is in SQL.
//   - What Redis loses is repaired from the journals. What no journal has any more is
//     counted and skipped in bounded time (Status.Lost, Unsent), never waited for for
//     ever, and never silently gone.
//   - All memory, files and work for others are bounded, also when somebody else
//     writes to the keys in Redis. Who can do that can forge events, though: they are
//     not signed. Give Redis a password and a network of its own.
//
// Not promised: that all nodes come to the same conclusions at the same moment, and
// that an [Announcement] arrives. It is a hint that SQL changed; who must not miss
// the change looks into SQL now and then.
//
// # Keys and clocks
//
// An incarnation is one life of a process, and new at each start: a sequence is never
// used twice, whatever the journal lost. Nothing depends on the order of incarnations.
// StreamTime is the clock of the node that published; the event's own time is moved
// into 5 s around it ([Skew]). A receiver moves events whose StreamTime is more than
// 5 s ahead of its own clock back to that (Status.Clamped); late ones keep their time,
// for they may have waited. So a wrong clock cannot carry the others' detectors ahead.
// Nodes whose clocks differ by more than Config.History may skip each other's events
// from before they met.
//
// # Redis
//
// Two streams, {kidoban}:events and {kidoban}:repair, of roughly bounded length; the
// commands are XADD, XREAD, XRANGE, EXPIRE and TIME.
// Entries hold versioned binary envelopes of at most 64 KiB; a version that is not
// known is skipped, counted and told. Events are sent in the lowest version that has
// their fields, and those of every version are read. In the first go events, in batches, beats and
// announcements. A beat says once a second that a node lives, what its highest
// sequence is, and what it has of others: from beats receivers learn of events that
// did not come, senders of what is everywhere, and all how many nodes are alive
// ([Stream.Nodes]; 5 s without a beat and a node is not). While Redis is away that
// number stays as it was.
//
// A receiver keeps, for each life of a node, the highest sequence and the gaps below.
// For a gap that does not fill in 0.2 s it puts a request into the second stream: to
// the node the events are of, then to all; answers go there for all to read. After
// Config.GiveUp, or when its own node has it no more and nobody else answers, a gap
// is lost; should its events come all the same, they are delivered and it is not.
// A node that meets another for the first time wants only what is younger than
// Config.History, and skips the rest (Status.Skipped).
//
// Once a second each node looks whether the last entries it read and wrote are still
// there. If not, Redis was restarted empty or failed over to a server that lacked
// them: it reads from the start, drops what it has, and sends again what some live
// node may lack, of the last Config.History at most (Status.Rewinds).
//
// # Journal
//
// Every node writes all events it has seen, its own and others', to segment files of
// its own: frames with a CRC-32C, written before the event goes to Redis and synced
// once a second. At a start an incomplete tail is cut off and told. The journal is
// the spool of what Redis has not taken, the source of repairs, of [Stream.Search],
// and of [Stream.Replay] after a snapshot. The oldest segments go when
// Config.JournalBytes is reached, those with events that Redis has not taken last:
// then these are counted as Unsent. While the disk takes nothing events stay in
// memory, up to 32 MiB of them (beyond, Unkept), and are written when it does again,
// without a restart. That the directory cannot be used is no reason not to start.
//
// Events tell of people: accounts, addresses, names as keyed digests and, where the
// gate allows it, for display. Keyed digests of passwords go with them, for detectors;
// [Stream.Search] and [Stream.Recent] leave them out. Files have mode 0600, and go after Config.JournalAge;
// the streams in Redis go an hour, or a day, after their last entry.
//
// # A start
//
// Open takes vector, position and unsent events from the journal. Replay gives
// subscribers what a snapshot lacks; what a snapshot has and the journal lost counts
// as delivered. Run then reads on in Redis and asks for the rest. Ready is closed when
// nothing is awaited, at the latest after Config.ReadyWait.
//
// # When something is wrong
//
// Status and the log tell it. Degraded: Redis does not answer; detection goes on with
// this node's own events, and nothing is lost before the journal is full. Spooled
// grows then, and falls to 0 within seconds after. GapsOpen that stays, and Lost: see
// which peer is behind, and whether its journal was deleted or its disk is full.
// Conflict: two processes have one node's name; change one of them. Unknown: nodes
// run releases that do not understand each other. Malformed: somebody else writes to
// the keys. ClockAhead and Clamped: set that node's clock. A clock that is set
// forward by more than Config.JournalAge makes the journal go. Journal.Error: make
// room; the process need not be restarted. Deleting both keys in Redis is safe at any
// time: the nodes send again what is missing.
package stream
