// Runs a forestbridge command in the warm worker. Shows progress; Esc ends it.
// Argument: the folder of this file, the folder of this call, then the words of the command, each on a line. Returns the last status line:
// "status=ok KEY=VALUE ..." or "status=error message=TEXT".
words = split(getArgument(), "\n");
lib = words[0];
job = words[1];
python = runMacro(lib + "python.ijm", lib);
if (startsWith(python, "status=error"))
    return python;
request = "";
for (i = 2; i < words.length; i++) {
    word = replace(words[i], "%", "%25");
    word = replace(word, ",", "%2C");
    word = replace(word, " ", "%20");
    word = replace(word, "\"", "%22");
    word = replace(word, "\t", "%09");
    if (i > 2)
        request = request + ",";
    request = request + word;
}
reply = exec(python, "-E", "-s", "-S", lib + "client.py", "submit", job, request);
while (startsWith(reply, "status=running")) {
    done = call("ij.Macro.getValue", reply, "current", "0");
    total = call("ij.Macro.getValue", reply, "maximum", "0");
    if (parseInt(total) > 0)
        showProgress(parseInt(done), parseInt(total));
    showStatus("ForestBridge: " + replace(substring(reply, indexOf(reply, "message=") + 8), "\n", "") + " (Esc ends it)");
    reply = exec(python, "-E", "-s", "-S", lib + "client.py", "wait", job);
}
showProgress(1);
showStatus("");
if (!startsWith(reply, "status=")) {
    if (reply == "")
        reply = "nothing";
    return "status=error message=expected an answer of the Python " + python + ", found: " + reply + "; choose the Python of forestbridge with FB Configure";
}
return replace(reply, "\n", "");
