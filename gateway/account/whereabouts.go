package account

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/gateway/pages"
)

const (
	historyMax = 100 // lines of the history
	recentMax  = 200 // sessions in which the client of a device is looked for
	byBackend  = "backend"
	byLogin    = "login"
	byExpiry   = "expiry"
)

// listDevices lists the devices on which the account signed in.
func (q *request) listDevices() error {
	devices, err := q.d.Devices.OfSubject(q.ctx(), q.Subject, q.Now)
	if err != nil {
		return err
	}
	clients, err := q.clients()
	if err != nil {
		return err
	}
	var view pages.AccountDevices
	for _, d := range devices {
		view.Devices = append(view.Devices, pages.DeviceRow{
			ID: d.ID, Client: clients[d.ID], Since: q.local(d.Since), Last: q.local(d.Last), State: d.State, Current: d.ID == q.Session.Device,
		})
	}
	slices.SortStableFunc(view.Devices, func(a, b pages.DeviceRow) int { return b.Last.Compare(a.Last) })
	if err := q.frame(&view.Account); err != nil {
		return err
	}
	return q.page(http.StatusOK, view)
}

// clients is what was last used on each device.
func (q *request) clients() (map[string]string, error) {
	sessions, err := q.d.Sessions.History(q.ctx(), q.Subject, recentMax)
	if err != nil {
		return nil, err
	}
	last := make(map[string]string)
	for _, s := range sessions {
		if _, ok := last[s.Device]; !ok && s.Device != "" && s.Client != "" {
			last[s.Device] = s.Client
		}
	}
	return last, nil
}

// forgetDevice forgets a device of the account. The devices' store carries no entry of
// the record: after a crash the record may take back what happened, and forgetting
// again does no harm.
func (q *request) forgetDevice() error {
	id := q.r.PostForm.Get(pages.FieldID)
	devices, err := q.d.Devices.OfSubject(q.ctx(), q.Subject, q.Now)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(devices, func(d auth.DeviceView) bool { return d.ID == id }) {
		return q.none()
	}
	err = q.act(actForget, map[string]string{"device": id}, func(ctx context.Context, _ auth.Act, at time.Time) error {
		return q.d.Devices.Forget(ctx, q.Subject, id, at)
	})
	if err != nil {
		return err
	}
	return q.to(AccountPath + "/devices?done=" + pages.DoneForgotten)
}

// listSessions lists the sessions of the account, this one first.
func (q *request) listSessions() error {
	others, err := q.others()
	if err != nil {
		return err
	}
	var view pages.AccountSessions
	for i, s := range append([]auth.Session{*q.Session}, others...) {
		view.Sessions = append(view.Sessions, pages.SessionRow{
			ID: s.ID, Client: s.Client, Place: q.place(s.Country), Program: s.Kind == auth.TokenSession,
			Since: q.local(s.Created), Seen: q.local(s.Seen), AAL: s.AALAt(q.Now, q.Policy.AAL2.Overall, q.Policy.AAL2.Idle), Current: i == 0,
		})
	}
	view.More = len(others) > 0
	if err := q.frame(&view.Account); err != nil {
		return err
	}
	return q.page(http.StatusOK, view)
}

// endSession ends another session of the account. ASVS 5.0 7.5.2 wants a factor before.
func (q *request) endSession() error {
	id := q.r.PostForm.Get(pages.FieldID)
	others, err := q.others()
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(others, func(s auth.Session) bool { return s.ID == id }) {
		return q.none()
	}
	return q.ending(pages.DoneEnded, func() error { return q.d.EndSession(q.ctx(), id, ByOwner) })
}

// endOthers ends all sessions of the account but this one.
func (q *request) endOthers() error {
	return q.ending(pages.DoneEndedAll, func() error { return q.d.EndSessions(q.ctx(), q.Subject, q.Session.ID, ByOwner) })
}

func (q *request) ending(done string, end func() error) error {
	all, err := q.d.Factors.List(q.ctx(), q.Subject)
	if err != nil {
		return err
	}
	if ok, err := q.sure(all, AccountPath+"/sessions"); !ok {
		return err
	}
	if err := end(); err != nil {
		return err
	}
	return q.to(AccountPath + "/sessions?done=" + done)
}

// history is when, where and with what somebody signed in, or had the right password
// and did not get in.
func (q *request) history() error {
	sessions, err := q.d.Sessions.History(q.ctx(), q.Subject, historyMax)
	if err != nil {
		return err
	}
	holds, err := q.d.Holds.History(q.ctx(), q.Subject, historyMax)
	if err != nil {
		return err
	}
	var view pages.AccountHistory
	for _, s := range sessions {
		row := pages.EventRow{At: q.local(s.Created), What: "begun", Client: s.Client, Place: q.place(s.Country), AAL: max(s.AAL, 1)}
		view.Events = append(view.Events, row)
		if !s.Ended.IsZero() {
			row.At, row.What, row.AAL = q.local(s.Ended), ending(s.EndedBy), 0
			view.Events = append(view.Events, row)
		}
	}
	for _, h := range holds {
		row := pages.EventRow{At: q.local(cmp.Or(h.Ended, h.Expires)), Client: h.Client, Place: q.place(h.Country)}
		switch h.State {
		case auth.HoldDenied:
			row.What = "denied"
		case auth.HoldExpired:
			row.What = "unanswered"
		default:
			continue
		}
		view.Events = append(view.Events, row)
	}
	slices.SortStableFunc(view.Events, func(a, b pages.EventRow) int { return b.At.Compare(a.At) })
	view.Events = view.Events[:min(len(view.Events), historyMax)]
	if err := q.frame(&view.Account); err != nil {
		return err
	}
	return q.page(http.StatusOK, view)
}

// ending is why a session ended, by who ended it.
func ending(by string) string {
	switch by {
	case byBackend:
		return "out"
	case ByOwner:
		return "own"
	case byLogin:
		return "replaced"
	case byExpiry:
		return "expired"
	case byRecovery:
		return "recovered"
	}
	return "stopped"
}
