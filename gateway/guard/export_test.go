package guard

import (
	"context"
	"time"
)

// SetPatience sets how long an act waits for its entry.
func (c *Core) SetPatience(d time.Duration) { c.announcing = d }

// Act is an act that must be on record.
func (c *Core) Act(ctx context.Context, do func(ctx context.Context, entry string, at time.Time) error) error {
	return c.act(ctx, actRegister, struct{}{}, true, do)
}

// Settle finds out what became of acts in doubt.
func (c *Core) Settle(ctx context.Context) error { return c.settle(ctx) }

// Sweep cleans up once.
func (c *Core) Sweep(ctx context.Context) { c.sweep(ctx) }

// Restore reads a file that Remember wrote.
func (c *Core) Restore(file string) { _, _ = c.restore(file) }
