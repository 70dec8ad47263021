package gateway

import (
	"errors"
	"strconv"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/guard"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

// Collectors live as long as the process; each configuration registers them in
// its own registry. Their labels come from closed sets, never from a client.
var (
	verdicts = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "kidoban", Name: "verdicts_total",
		Help: "Verdicts stricter than allow, by control, action and reason. observed: it was not acted on.",
	}, []string{"control", "action", "reason", "observed"})
	logins = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "kidoban", Name: "logins_total", Help: "Login attempts by outcome; one per typed name.",
	}, []string{"outcome"})
)

// registerMetrics registers the collectors with one configuration.
func registerMetrics(ctx caddy.Context) error {
	registry := ctx.GetMetricsRegistry()
	if registry == nil {
		return nil
	}
	for _, c := range []prometheus.Collector{verdicts, logins} {
		var already prometheus.AlreadyRegisteredError
		if err := registry.Register(c); err != nil && !errors.As(err, &already) {
			return err
		}
	}
	return nil
}

func countVerdict(c guard.Control, a rules.Action, reason policies.Reason, observed bool) {
	verdicts.WithLabelValues(string(c), a.String(), string(reason), strconv.FormatBool(observed)).Inc()
}

func countLogin(e detectors.Event) {
	if e.Kind == detectors.Login || e.Kind == detectors.Door {
		logins.WithLabelValues(string(e.Outcome)).Inc()
	}
}
