package gateway

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

// hasty finds the sites whose WebSockets and event streams would be cut off by
// each reload: those that this module guards and that proxy without
// stream_close_delay.
func hasty(ctx caddy.Context) []error {
	app, err := ctx.AppIfConfigured("http")
	if err != nil {
		return nil // no site, nothing to cut off
	}
	var faults []error
	for name, server := range app.(*caddyhttp.App).Servers {
		if server != nil && cutsOff(server.Routes, false) {
			faults = append(faults, fmt.Errorf("server %s: a reload closes every WebSocket at once: add `stream_close_delay 5m` to reverse_proxy", name))
		}
	}
	slices.SortFunc(faults, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
	return faults
}

// cutsOff reports whether a guarded route proxies streams without a delay.
func cutsOff(routes caddyhttp.RouteList, guarded bool) bool {
	for _, route := range routes {
		guarded := guarded || slices.ContainsFunc(routes, func(r caddyhttp.Route) bool { return slices.ContainsFunc(r.Handlers, guards) })
		for _, h := range route.Handlers {
			switch h := h.(type) {
			case *reverseproxy.Handler:
				if guarded && h.StreamCloseDelay == 0 {
					return true
				}
			case *caddyhttp.Subroute:
				if cutsOff(h.Routes, guarded) {
					return true
				}
			}
		}
	}
	return false
}

func guards(h caddyhttp.MiddlewareHandler) bool {
	_, ok := h.(*Handler)
	return ok
}
