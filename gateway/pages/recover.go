package pages

import "time"

// Lost begins the recovery of an account whose owner has lost every factor: FieldCSRF
// to Action.
type Lost struct {
	Action, CSRF string
	Wait         time.Duration // how long recovery takes, so that the owner can stop it
	Mail         []string      // where notices and the code go, masked
	Cancel       string        // link: back; empty: none
}

func (Lost) screen() screen { return screen{template: "lost", title: "lost.title", forms: true} }

// RecoverBegun says when the recovery goes on.
type RecoverBegun struct {
	Until time.Time // when the code is mailed, in the reader's zone
	Mail  []string  // where to, masked
}

func (RecoverBegun) screen() screen {
	return screen{template: "recover-begun", title: "recover-begun.title"}
}

// RecoverCode asks for the code that was mailed when the waiting time was over:
// FieldCode to Action.
type RecoverCode struct {
	Action, CSRF string
	Failed       bool
	Wait         time.Duration // nothing is looked at until then
	Cancel       string        // form: gives up, by POST with FieldCSRF; empty: not offered
}

func (RecoverCode) screen() screen {
	return screen{template: "recover-code", title: "recover-code.title", forms: true}
}

// RecoverStop is behind the link in a notice of recovery: the link alone does nothing,
// its button sends FieldCSRF to Action.
type RecoverStop struct {
	Action, CSRF string
	Stopped      bool // it was stopped just now, or before
}

func (s RecoverStop) screen() screen {
	if s.Stopped {
		return screen{template: "recover-stop", title: "recover-stop.stopped.title"}
	}
	return screen{template: "recover-stop", title: "recover-stop.title", forms: true}
}

var recoverWords = map[string]phrase{
	"lost.title": {"You have lost every second step", "二要素認証がすべて使えない場合"},
	"lost.try":   {"Before you go on, look once more: a recovery code that you printed, another phone or computer on which you are signed in, or a security key also lead back. Your administrator may help faster.", "お手続きの前に、印刷したリカバリーコード、ログイン済みの別のスマートフォンやパソコン、セキュリティキーがないか、もう一度お確かめください。管理者にご相談いただくほうが早い場合もあります。"},
	"lost.how":   {"How it works", "お手続きの流れ"},
	"lost.tell":  {"We tell every address that is on file for you, so that you could stop it if it were somebody else.", "登録されているすべてのアドレスにお知らせします。第三者による操作であれば、そこから中止できます。"},
	"lost.wait":  {"After %s we mail you a code.", "%s後に、コードをメールでお送りします。"},
	"lost.then":  {"Then you sign in with your password and that code, and set up a new second step. What you lost stops working.", "パスワードとそのコードでログインし、新しい二要素認証を設定していただきます。紛失したものは使えなくなります。"},
	"lost.mail":  {"Notices and the code go to:", "お知らせとコードの送り先:"},
	"lost.go":    {"Begin recovery", "復旧の手続きを始める"},

	"recover-begun.title": {"Recovery has begun", "復旧の手続きを開始しました"},
	"recover-begun.until": {"A code will be mailed to you after this time:", "次の日時以降に、コードをメールでお送りします。"},
	"recover-begun.next":  {"Then sign in as usual with your password, and give the code. Until then there is nothing to do.", "届きましたら、いつものようにパスワードでログインし、コードを入力してください。それまでは何もしていただく必要はありません。"},
	"recover-begun.found": {"If you find what you lost, simply sign in with it, and stop the recovery on your account page.", "紛失したものが見つかった場合は、それを使ってログインし、アカウントページで手続きを中止してください。"},

	"recover-code.title":  {"Enter your recovery code", "復旧用コードの入力"},
	"recover-code.intro":  {"Your password was accepted. Please give the code that we mailed you for the recovery of your account.", "パスワードを確認しました。アカウントの復旧のためにメールでお送りしたコードを入力してください。"},
	"recover-code.code":   {"Code from the mail", "メールで届いたコード"},
	"recover-code.hint":   {"Seven groups of four characters. Capitals and hyphens do not matter.", "4文字ずつ7組のコードです。大文字・小文字やハイフンの有無は問いません。"},
	"recover-code.failed": {"The code was not right. Please check it and try again.", "コードを確認できませんでした。内容をお確かめのうえ、もう一度お試しください。"},

	"recover-stop.title":         {"Stop the recovery?", "復旧の手続きを中止しますか"},
	"recover-stop.intro":         {"Somebody has begun to recover your account at %s, saying that every second step was lost.", "%s のあなたのアカウントについて、二要素認証をすべて紛失したとして復旧の手続きが始められています。"},
	"recover-stop.not":           {"If it was not you, stop it, and change your password.", "お心当たりがない場合は、手続きを中止し、パスワードを変更してください。"},
	"recover-stop.go":            {"Stop the recovery", "手続きを中止する"},
	"recover-stop.stopped.title": {"The recovery was stopped", "復旧の手続きを中止しました"},
	"recover-stop.stopped":       {"Nobody gets in by it. If it was not you who began it, somebody may know your password: change it now, and tell your administrator.", "この手続きでログインされることはありません。お心当たりがない場合は、パスワードを知られている可能性があります。すぐに変更し、管理者にお知らせください。"},
}
