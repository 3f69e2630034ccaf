package emperor

// State is where a vassal is, in the words that ps prints.
type State string

// The states.
const (
	Starting State = "starting"
	Running  State = "running"
	Backoff  State = "backoff"  // died or could not start; waits for its next start
	Stopping State = "stopping" // asked to stop, not gone yet
	Stopped  State = "stopped"
	Sleeping State = "sleeping" // nothing of it runs; a connection to its socket starts it
	Invalid  State = "invalid"  // its ini is bad and there is nothing older to run
)

// States are all of them, in the order in which people want to read how many
// vassals are in each.
var States = []State{Running, Starting, Backoff, Stopping, Stopped, Sleeping, Invalid}

// event is what happens to a vassal.
type event string

const (
	good     event = "good"     // its ini was seen or changed, and is fine
	same     event = "same"     // as good, and the running app can take it by reloading itself
	bad      event = "bad"      // its ini was seen or changed, and is not
	gone     event = "gone"     // its ini was removed
	started  event = "started"  // the init stage became the app
	failed   event = "failed"   // the start failed
	exited   event = "exited"   // the app ended
	exiled   event = "exiled"   // the app ended, and does not want to be started again
	due      event = "due"      // the back-off is over
	lull     event = "lull"     // as good or due, of a vassal that can be woken
	knock    event = "knock"    // somebody is at its door
	tired    event = "tired"    // it can be woken, and asks to be stopped
	finished event = "finished" // it can be woken, and its app ended well with nobody at the door
	start    event = "start"    // an operator's words
	stop     event = "stop"
	restart  event = "restart"
)

// action is what the loop does on an event.
type action string

const (
	nothing   action = ""
	launch    action = "launch"    // with the newest good ini
	terminate action = "terminate" // the running app, then wait for its end
	renew     action = "renew"     // tell the running app to reload itself
	cancel    action = "cancel"    // the start that is under way
	wait      action = "wait"      // schedule the next start
	report    action = "report"    // remember the error, go on as before
	expand    action = "expand"    // read the ini again
	forget    action = "forget"    // the vassal and its jail
	rest      action = "rest"      // close the jail and the door, stay down
	doze      action = "doze"      // close the jail, wait for somebody at the door
	decide    action = "decide"    // stopping is over: launch, rest, doze or forget, as was last asked
)

// reaction is a cell of the table. then, when set, is what to do once the app
// is gone.
type reaction struct {
	to   State
	do   action
	then action
}

// table says for every state and event what comes next. A pair that is not in
// it cannot happen, or means nothing: late news of something that was
// overtaken.
var table = map[State]map[event]reaction{
	Starting: {
		good:    {to: Stopping, do: cancel, then: launch},
		bad:     {to: Starting, do: report},
		gone:    {to: Stopping, do: cancel, then: forget},
		started: {to: Running},
		failed:  {to: Backoff, do: wait},
		stop:    {to: Stopping, do: cancel, then: rest},
		restart: {to: Stopping, do: cancel, then: launch},
	},
	Running: {
		good:     {to: Stopping, do: terminate, then: launch},
		same:     {to: Running, do: renew},
		bad:      {to: Running, do: report},
		gone:     {to: Stopping, do: terminate, then: forget},
		exited:   {to: Backoff, do: wait},
		exiled:   {to: Stopped, do: rest},
		tired:    {to: Stopping, do: terminate, then: doze},
		finished: {to: Sleeping, do: doze},
		stop:     {to: Stopping, do: terminate, then: rest},
		restart:  {to: Stopping, do: terminate, then: launch},
	},
	Backoff: {
		good:    {to: Starting, do: launch},
		bad:     {to: Backoff, do: report},
		gone:    {to: Stopped, do: forget},
		due:     {to: Starting, do: launch},
		lull:    {to: Sleeping, do: doze},
		start:   {to: Starting, do: launch},
		stop:    {to: Stopped, do: rest},
		restart: {to: Starting, do: launch},
	},
	Stopping: {
		good:    {to: Stopping, then: launch},
		lull:    {to: Stopping, then: doze},
		bad:     {to: Stopping, do: report},
		gone:    {to: Stopping, then: forget},
		started: {to: Stopping, do: terminate},
		failed:  {to: Stopped, do: decide},
		exited:  {to: Stopped, do: decide},
		exiled:  {to: Stopped, do: decide},
		start:   {to: Stopping, then: launch},
		stop:    {to: Stopping, then: rest},
		restart: {to: Stopping, then: launch},
	},
	Stopped: {
		good:    {to: Starting, do: launch},
		lull:    {to: Sleeping, do: doze},
		bad:     {to: Invalid, do: report},
		gone:    {to: Stopped, do: forget},
		start:   {to: Starting, do: launch},
		restart: {to: Starting, do: launch},
	},
	Sleeping: {
		good:    {to: Starting, do: launch},
		lull:    {to: Sleeping, do: doze},
		bad:     {to: Sleeping, do: report},
		gone:    {to: Stopped, do: forget},
		knock:   {to: Starting, do: launch},
		failed:  {to: Backoff, do: wait},
		start:   {to: Starting, do: launch},
		stop:    {to: Stopped, do: rest},
		restart: {to: Starting, do: launch},
	},
	Invalid: {
		good:    {to: Starting, do: launch},
		lull:    {to: Sleeping, do: doze},
		bad:     {to: Invalid, do: report},
		gone:    {to: Stopped, do: forget},
		start:   {to: Invalid, do: expand},
		stop:    {to: Stopped, do: nothing},
		restart: {to: Invalid, do: expand},
	},
}
