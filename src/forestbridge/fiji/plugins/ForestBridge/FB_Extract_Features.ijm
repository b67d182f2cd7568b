// FB Extract Features: the features of an open image, into a feature store (OME-Zarr), as an image, or both.
// run("FB Extract Features", "input=[a.tif] store=[a.features.ome.zarr] show");
//   input=    title of an open image; the active one by default
//   store=    path of the store to write, NAME.features.ome.zarr; none by default
//   encoder=  name of the encoder (forestbridge encoders lists them)
//   like=     path of a forest, package or store whose encoder is taken in its place
//   3d        filters along z too
//   show      opens the features as a stack with their names, "features of a.tif"
//   overwrite replaces a store that is there
requires("1.53t");
var lib = libFolder();
var job = getDirectory("temp") + "forestbridge-" + d2s(getTime(), 0) + "-" + d2s(floor(random * 1e9), 0);
var wasBatch = is("Batch Mode");
headless = call("java.lang.System.getProperty", "java.awt.headless");
Dialog.create("FB Extract Features");
Dialog.addString("Input", "", 20);
if (headless == "true")
    Dialog.addString("Store", "", 40);
else
    Dialog.addFile("Store", "");
Dialog.addString("Encoder", "filters", 20);
if (headless == "true")
    Dialog.addString("Like", "", 40);
else
    Dialog.addFile("Like", "");
Dialog.addCheckbox("3d", false);
Dialog.addCheckbox("Show", false);
Dialog.addCheckbox("Overwrite", false);
Dialog.show();
input = Dialog.getString();
store = Dialog.getString();
encoder = Dialog.getString();
like = Dialog.getString();
volume = Dialog.getCheckbox();
show = Dialog.getCheckbox();
overwrite = Dialog.getCheckbox();

if (!wasBatch)
    setBatchMode(true);
if (store == "" && !show)
    finish("status=error message=expected store= with a path (NAME.features.ome.zarr), or show, found neither");
lines = split(check(runMacro(lib + "save.ijm", input + "\n" + job)), "\n");
target = store;
if (store == "")
    target = job + File.separator + "shown.features.ome.zarr";
words = job + "\nextract\n" + lines[2] + "\n-o\n" + target;
if (like != "")
    words = words + "\n--like\n" + like;
else
    words = words + "\n--encoder\n" + encoder;
if (volume)
    words = words + "\n--3d";
if (overwrite)
    words = words + "\n--overwrite";
reply = check(runMacro(lib + "call.ijm", lib + "\n" + words));
if (store != "")
    print("ForestBridge: features of " + lines[1] + " are in " + store);
if (show) {
    result = job + File.separator + File.getName(job) + ".tif";
    check(runMacro(lib + "call.ijm", lib + "\n" + job + "\nexport\n" + target + "\n-o\n" + result));
    check(runMacro(lib + "show.ijm", result + "\nfeatures of " + lines[1] + "\n" + lines[1]));
}
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
