package pages

import "time"

// Kind is what a page or a problem document is about.
type Kind string

const (
	Refused      Kind = "refused"
	StepUp       Kind = "step-up"
	Limited      Kind = "limited"
	Unavailable  Kind = "unavailable"
	SessionEnded Kind = "session-ended"
	TooEarly     Kind = "too-early"
	BadRequest   Kind = "bad-request"
	FactorNeeded Kind = "factor-needed"
	Accepted     Kind = "accepted"
)

// Words are what one kind says in one language.
type Words struct {
	Title  string
	Detail string
	Next   string // what the person can do
}

var words = map[Kind]map[string]Words{
	Refused: {
		"en": {"This request was not let through", "To protect accounts of this service, this request was stopped before it reached the service.", "If you are a user of this service, please tell your administrator the reference code below."},
		"ja": {"このリクエストはお通しできませんでした", "サービスのアカウントを守るため、このリクエストはサービスに届く前に止められました。", "ご利用者の方は、下の参照番号を管理者にお伝えください。"},
	},
	StepUp: {
		"en": {"We need to be sure that it is you", "To protect your account, signing in from here needs more proof at the moment, because this device is not known to us yet.", "Please sign in from a device that you have used before, or tell your administrator the reference code below."},
		"ja": {"ご本人の確認が必要です", "この端末はまだ確認されていません。アカウントを守るため、現在ここからのログインには追加の確認が必要です。", "以前に使ったことのある端末からログインするか、下の参照番号を管理者にお伝えください。"},
	},
	Limited: {
		"en": {"Too many attempts", "There were too many attempts in a short time.", "Please wait a little and try again."},
		"ja": {"試行回数が多すぎます", "短い時間に多くの試行がありました。", "しばらく待ってから、もう一度お試しください。"},
	},
	Unavailable: {
		"en": {"Signing in is not possible at the moment", "A part of the service that keeps sessions safe cannot be reached.", "Please try again in a moment. Who is signed in already can go on working."},
		"ja": {"現在ログインできません", "セッションを安全に保つための機能に接続できません。", "しばらくしてからもう一度お試しください。すでにログイン中の方はそのままご利用いただけます。"},
	},
	SessionEnded: {
		"en": {"You have been signed out", "This session has ended.", "Please sign in again."},
		"ja": {"ログアウトしました", "このセッションは終了しました。", "もう一度ログインしてください。"},
	},
	TooEarly: {
		"en": {"Please repeat the request", "The request came before the connection was fully secured.", "Your browser repeats it by itself."},
		"ja": {"もう一度送信してください", "安全な接続が確立する前にリクエストが届きました。", "ブラウザーが自動的に再送します。"},
	},
	Accepted: {
		"en": {"We have received your request", "If it can be met, a message is on its way to the mail address that you gave.", "Please look into your mailbox, and among unwanted mail. If nothing comes within a few minutes, check the address and ask again later."},
		"ja": {"お申し込みを受け付けました", "手続きを進められる場合は、ご入力のメールアドレスにメールをお送りします。", "受信トレイと迷惑メールフォルダーをご確認ください。数分待っても届かない場合は、アドレスをお確かめのうえ、しばらくしてからもう一度お試しください。"},
	},
	FactorNeeded: {
		"en": {"One more step to sign in", "The password was right. Before this app is signed in, we have to be sure that it is you.", "Open the address that the app shows in a browser, type the code that it shows, and sign in here once more."},
		"ja": {"ログインにはもう一段階の確認が必要です", "パスワードは確認できました。このアプリでログインする前に、ご本人であることの確認が必要です。", "アプリに表示されたアドレスをブラウザーで開き、表示されたコードを入力してから、もう一度ログインしてください。"},
	},
	BadRequest: {
		"en": {"This request could not be read", "The form was too large, or written in a way that can be read in more than one sense.", "Please go back and try again."},
		"ja": {"リクエストを読み取れませんでした", "送信内容が大きすぎるか、複数の意味に読める形式でした。", "前のページに戻って、もう一度お試しください。"},
	},
}

// HeldDetail tells a person, by way of a program that shows it, how to finish a login
// that is held.
func HeldDetail(lang, address, code string) string {
	if lang == "ja" {
		return "ブラウザーで " + address + " を開き、コード " + code + " を入力してご本人確認を済ませてから、もう一度ログインしてください。心当たりがない場合は、そのページでお知らせください。"
	}
	return "Open " + address + " in a browser, type the code " + code + " and finish there, then sign in here once more. Type it only if you are signing in yourself."
}

// Text returns what kind says in lang ("ja" or "en").
func Text(kind Kind, lang string) Words { return words[kind][lang] }

// Page says that a request was not let through.
type Page struct {
	Kind       Kind
	Reference  string
	RetryAfter time.Duration
}

func (p Page) screen() screen {
	return screen{template: "problem", title: "problem." + string(p.Kind) + ".title"}
}

// problemWords are those of all kinds.
func problemWords() map[string]phrase {
	all := make(map[string]phrase, 3*len(words))
	for kind, said := range words {
		en, ja := said["en"], said["ja"]
		all["problem."+string(kind)+".title"] = phrase{en.Title, ja.Title}
		all["problem."+string(kind)+".detail"] = phrase{en.Detail, ja.Detail}
		all["problem."+string(kind)+".next"] = phrase{en.Next, ja.Next}
	}
	return all
}
