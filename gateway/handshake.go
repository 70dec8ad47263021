package gateway

import (
	"container/list"
	"crypto/tls"
	"encoding/json"
	"net"
	"net/http"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddytls"

	"github.com/kidoban/kidoban/gateway/ja4"
)

func init() { caddy.RegisterModule(new(Handshake)) }

// Handshake sees how clients begin TLS, and matches every one: as a matcher of a
// connection policy it changes nothing about which policy applies.
//
// It needs no configuration: a kidoban handler adds it to all connection policies
// of its server. That works for HTTP/1.1, 2 and 3 and for resumed sessions. Where
// TLS ends before this server, at a proxy or a load balancer, nothing is known.
type Handshake struct{}

// CaddyModule implements caddy.Module.
func (*Handshake) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "tls.handshake_match.kidoban", New: func() caddy.Module { return new(Handshake) }}
}

// Match implements caddytls.ConnectionMatcher. It is always true.
func (*Handshake) Match(hello *tls.ClientHelloInfo) bool {
	if hello.Conn == nil {
		return true
	}
	remote := hello.Conn.RemoteAddr()
	_, quic := remote.(*net.UDPAddr)
	handshakes.note(flow{remote.String(), quic}, ja4.Stable(hello, quic))
	return true
}

// seeHandshakes has the connection policies of s tell how clients begin TLS. Every
// policy gets the matcher, not a new one in front: Caddy looks only at those for the
// name asked for where a server has many. It must run before s provisions its
// policies, and does from a handler's Provision.
func seeHandshakes(s *caddyhttp.Server) {
	if s == nil {
		return
	}
	added := false
	for _, policy := range s.TLSConnPolicies {
		if _, there := policy.MatchersRaw["kidoban"]; there {
			continue
		}
		if policy.MatchersRaw == nil {
			policy.MatchersRaw = make(caddy.ModuleMap)
		}
		policy.MatchersRaw["kidoban"] = json.RawMessage("{}")
		added = true
	}
	if !added { // by another handler of the server, or there is no TLS
		return
	}
	s.RegisterConnState(func(c net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			handshakes.forget(flow{c.RemoteAddr().String(), false})
		}
	})
}

// handshakeOf is the fingerprint of the connection that r came on; empty: unknown.
func handshakeOf(r *http.Request) string {
	if r.TLS == nil {
		return ""
	}
	return handshakes.of(flow{r.RemoteAddr, r.ProtoMajor == 3})
}

// flow names a connection as long as it lasts. Two that last together have the same
// name only if one client has one port for two of our listeners, and then each other's
// fingerprint or none.
type flow struct {
	remote string
	quic   bool
}

// maxHandshakes bounds the connections of which a fingerprint is kept, about 200
// bytes each.
const maxHandshakes = 1 << 17

// handshakes are those of this process. Connections outlive configurations.
var handshakes = newHandshakeTable(maxHandshakes)

// handshakeTable keeps the fingerprint of connections: over TCP until they close, over
// QUIC, which tells nobody when, until newer ones need the place. The one that was used
// longest ago goes first. A QUIC connection whose client changed its address is unknown.
type handshakeTable struct {
	most int

	mu    sync.Mutex
	at    map[flow]*list.Element // of a handshake
	order *list.List             // the latest used in front
}

type handshake struct {
	flow flow
	ja4  string
}

func newHandshakeTable(most int) *handshakeTable {
	return &handshakeTable{most: most, at: make(map[flow]*list.Element), order: list.New()}
}

func (t *handshakeTable) note(f flow, print string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.at[f]; e != nil {
		e.Value = handshake{f, print}
		t.order.MoveToFront(e)
		return
	}
	t.at[f] = t.order.PushFront(handshake{f, print})
	if len(t.at) > t.most {
		t.dropLocked(t.order.Back())
	}
}

func (t *handshakeTable) of(f flow) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.at[f]
	if e == nil {
		return ""
	}
	t.order.MoveToFront(e)
	return e.Value.(handshake).ja4
}

func (t *handshakeTable) forget(f flow) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.at[f]; e != nil {
		t.dropLocked(e)
	}
}

func (t *handshakeTable) dropLocked(e *list.Element) {
	t.order.Remove(e)
	delete(t.at, e.Value.(handshake).flow)
}

var _ caddytls.ConnectionMatcher = (*Handshake)(nil)
