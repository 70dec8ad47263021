package api

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/kidoban/kidoban/gateway/once"
)

// requestOf is what must be equal for two calls to be the same act.
func requestOf(c *call) once.Request {
	h := sha256.New()
	h.Write([]byte(c.Method + "\n" + c.URL.Path + "\n" + c.Header.Get("Content-Type") + "\n"))
	h.Write(c.body)
	return once.Request(h.Sum(nil))
}

// keep is a context for what must be written though the client went away.
func (c *call) keep() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(c.Context()), 2*time.Second)
}

// underKey acts once for each Idempotency-Key of an operator: the same request
// again is answered as before, for [once.KeepAnswers]; another request under the
// key is refused. What failed left nothing and may be tried again. A secret is not
// kept: the answer that has it is given once.
func (h *handler) underKey(c *call, act func() (answer, error)) (answer, error) {
	keys := c.Header.Values("Idempotency-Key")
	if len(keys) == 0 {
		return act()
	}
	key := keys[0]
	if n := len(key); n >= 2 && key[0] == '"' && key[n-1] == '"' {
		key = key[1 : n-1]
	}
	if len(keys) > 1 || key == "" || len(key) > 128 || strings.IndexFunc(key, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }) >= 0 {
		return answer{}, invalid([]Fault{{Header: "Idempotency-Key", Detail: "want one, of 1 to 128 visible ASCII characters"}})
	}
	id := once.Act{Operator: c.operator.name, Key: key}
	progress, earlier, err := h.Once.Begin(c.Context(), id, requestOf(c))
	if err != nil {
		return answer{}, errors.Join(ErrUnavailable, err)
	}
	switch progress {
	case once.Running:
		return answer{}, &Problem{Type: typeConflict, Status: http.StatusConflict, Title: "The call under this Idempotency-Key is under way", Detail: "wait for its answer, or ask again", retryAfter: time.Second}
	case once.Other:
		p := invalid([]Fault{{Header: "Idempotency-Key", Detail: "was used with another request: choose a new one for each act"}}).(*Problem)
		p.Type = typeKeyReused
		return answer{}, p
	case once.Done:
		return answer{status: earlier.Status, body: earlier.Body, location: earlier.Location, replayed: true}, nil
	}
	a, err := act()
	keep, cancel := c.keep()
	defer cancel()
	if err != nil {
		return answer{}, errors.Join(err, h.Once.Abandon(keep, id))
	}
	if a.kept == nil {
		a.kept = a.body
	}
	body, err := render(a.kept)
	if err != nil {
		return answer{}, err
	}
	// The act is done. If its answer cannot be kept, a second call acts again, which
	// changes nothing for the worse.
	if err := h.Once.Finish(keep, id, once.Answer{Status: a.status, Location: a.location, Body: body}); err != nil {
		h.Log.Error("operators' API", "operator", c.operator.name, "error", err)
	}
	return a, nil
}
