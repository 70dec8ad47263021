package account

import (
	"context"
	"net/http"
	"time"
)

// Bind lets the person of a hold or session add a factor; path is what follows v.Base.
func (d *Desk) Bind(w http.ResponseWriter, r *http.Request, path string, v Visit) error { return nil }

// Account serves the pages of an account; path is what follows v.Base.
func (d *Desk) Account(w http.ResponseWriter, r *http.Request, path string, v Visit) error {
	return nil
}

// Link serves what is behind a mailed link.
func (d *Desk) Link(w http.ResponseWriter, r *http.Request, v Visit) error { return nil }

// Lost serves the recovery of an account at a hold; path is what follows LostPath.
func (d *Desk) Lost(w http.ResponseWriter, r *http.Request, path string, v Visit) error { return nil }

// CancelRecovery stops a recovery.
func (d *Desk) CancelRecovery(w http.ResponseWriter, r *http.Request, v Visit) error { return nil }

// Ripen mails the codes of recoveries whose waiting time is over.
func (d *Desk) Ripen(ctx context.Context, now time.Time) error { return nil }
