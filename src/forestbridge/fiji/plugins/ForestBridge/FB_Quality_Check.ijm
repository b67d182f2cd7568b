// FB Quality Check: is an open image good enough to be segmented? Exposure, clipping, noise, focus of every plane and channel.
// run("FB Quality Check", "input=[a.tif] histogram");
//   input=     title of an open image; the active one by default
//   histogram  opens a picture of the histograms, "histogram of a.tif"
// Opens the table "quality of a.tif.csv" and writes the verdict, ok, look or unusable, with its reasons into the Log window.
requires("1.53t");
var lib = libFolder();
var job = getDirectory("temp") + "forestbridge-" + d2s(getTime(), 0) + "-" + d2s(floor(random * 1e9), 0);
var wasBatch = is("Batch Mode");
Dialog.create("FB Quality Check");
Dialog.addString("Input", "", 20);
Dialog.addCheckbox("Histogram", false);
Dialog.show();
input = Dialog.getString();
histogram = Dialog.getCheckbox();

if (!wasBatch)
    setBatchMode(true);
lines = split(check(runMacro(lib + "save.ijm", input + "\n" + job)), "\n");
table = job + File.separator + "quality of " + File.getName(lines[2]) + ".csv";
words = job + "\nqc\n" + lines[2] + "\n--csv\n" + table;
picture = job + File.separator + "histogram.png";
if (histogram)
    words = words + "\n--plot\n" + picture;
reply = runMacro(lib + "call.ijm", lib + "\n" + words);
if (!File.exists(table))
    finish(reply);
Table.open(table); // named well already: to rename it would be recorded
if (histogram) {
    open(picture);
    rename("histogram of " + lines[1]);
}
verdict = call("ij.Macro.getValue", reply, "verdict", "unusable");
print("ForestBridge: " + lines[1] + ": " + verdict);
reasons = split(call("ij.Macro.getValue", reply, "reasons", ""), "|");
for (i = 0; i < reasons.length; i++)
    if (reasons[i] != "")
        print("    " + reasons[i]);
finish("status=ok");

function check(reply) {
    if (!startsWith(reply, "status=ok"))
        finish(reply);
    return reply;
}

function finish(reply) {
    runMacro(lib + "end.ijm", lib + "\n" + job + "\n" + d2s(wasBatch, 0) + "\n" + reply);
    exit;
}

function libFolder() {
    folder = getDirectory("plugins");
    if (folder == "") { // headless there are no menus, which know it
        folder = call("java.lang.System.getProperty", "plugins.dir", "");
        if (File.isDirectory(folder + File.separator + "plugins"))
            folder = folder + File.separator + "plugins";
        folder = folder + File.separator;
    }
    return folder + "ForestBridge" + File.separator + "lib" + File.separator;
}
