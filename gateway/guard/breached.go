package guard

import "context"

// breached reports whether a password is on the operator's list of breached ones.
func (g *Guard) breached(ctx context.Context, password string) bool {
	return g.Breached != nil && g.Breached(ctx, password)
}
