// Package bench measures what the gate costs a request, against bare Caddy, and what
// memory it takes. It has no code of its own: everything is in its benchmarks. The first
// is run by
//
//	go test ./gateway/bench -run '^$' -bench Proxy -benchtime 1x -timeout 60m
//
// and, with -short, in a small version that shows that it works and whose figures
// mean nothing. It takes about five minutes, needs Linux and two cores, and prints
// a table in Markdown.
//
// # What is measured
//
// One binary is built and started once for each row of the table, as a process
// of its own with a data directory of its own: bare Caddy with a reverse_proxy;
// the same again, whose difference to the first is the noise of the whole
// arrangement (A/A); the gate with every guard on; with three limits in memory and
// 1,000 live decisions besides; and with 1,000,000 of them. All stand in front of
// one small backend and get the same request, byte for byte in length: a GET with
// the cookies of a session that was obtained by logging in through the gate. The
// answer is 200 bytes of JSON.
//
// The proxies share one core, one at a time: the others are stopped (SIGSTOP).
// The generator of load and the backend share another. The main figure is the CPU
// time of the proxy's whole process for each request, from the kernel's accounting
// (its CPU clock, in nanoseconds, threads that ended included), so that it matters
// little what else the machine does. In each round every row gets the same number
// of requests, in short turns that alternate, each time in another order; what is
// compared is always two rows in one round, and medians and quartiles are over
// rounds. A collection of garbage that happens once in several rounds moves no
// median, so the mean over all requests stands beside it.
//
// # What is not measured
//
// TLS, log-ins, refusals, many sessions or sources at once, a store other than
// memory. Throughput is that of one core with 16 connections and depends on how
// fast the other core can ask; the table's caption tells how busy the proxy's was.
//
// # Memory
//
//	go test ./gateway/bench -run '^$' -bench Memory -benchtime 1x -timeout 60m -v
//
// starts the gateway with a million decisions and a million sessions in its database,
// and what detectors and rules know of log-ins from a million sources, under
// GOMEMLIMIT=1GiB. 300,000 of the sessions are then used, twice, so that those in memory
// are as many as there can be. It prints what the process takes, now and at its highest,
// and what its heap is made of by package, from a heap profile; the CPU time of a request
// shows what the collector makes of the limit. Filling the database takes some ten
// minutes.
package bench
