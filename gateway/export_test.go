package gateway

import "time"

// LookOften has gates that open from now on look at geo files often, until undone.
func LookOften() (undo func()) {
	before := relocating
	relocating = 10 * time.Millisecond
	return func() { relocating = before }
}

// HandshakeFrom is the fingerprint of the connection from remote, empty if none is kept.
func HandshakeFrom(remote string, quic bool) string { return handshakes.of(flow{remote, quic}) }

// Handshakes is a table that keeps most fingerprints.
func Handshakes(most int) (note func(remote, print string), of func(remote string) string) {
	t := newHandshakeTable(most)
	return func(remote, print string) { t.note(flow{remote, false}, print) }, func(remote string) string { return t.of(flow{remote, false}) }
}
