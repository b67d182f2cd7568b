// Opens a result under a title, with the pixel size of the image it belongs to.
// Argument: path (of a name that no open image has), title, and title of the image, each on a line.
words = split(getArgument(), "\n");
selectImage(words[2]);
getVoxelSize(width, height, depth, unit);
interval = Stack.getFrameInterval();
open(words[0]);
selectImage(File.getName(words[0]));
rename(words[1]);
if (unit == "microns") // as ImageJ calls the micrometre in macros; images have its sign
    unit = "um";
setVoxelSize(width, height, depth, unit);
if (interval != 0)
    Stack.setFrameInterval(interval);
if (startsWith(words[1], "probabilities") || startsWith(words[1], "uncertainty")) { // old versions do not read it from the file
    Stack.getDimensions(width, height, channels, slices, frames);
    for (c = channels; c >= 1; c--) {
        if (channels > 1)
            Stack.setChannel(c);
        setMinAndMax(0, 1);
    }
}
return "status=ok";
